// One piece of memory for all buffers of a pass: buffers whose lives do not meet share it. Who declares them says at
// which steps each holds something; solve() places them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace premotor::engine {

class Arena {
 public:
  static constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector register

  // Steps first .. last, both among them.
  struct Span {
    int first, last;
  };
  using Id = std::size_t;

  // A buffer of `bytes` that holds something during the spans. Its contents are undefined outside of them.
  Id declare(std::int64_t bytes, std::vector<Span> lives);
  // Places every buffer: largest first, each at the lowest place that is free during its life.
  void solve();
  // Takes memory for what solve() has placed; throws std::bad_alloc.
  void allocate();

  // Behind the last buffer, and what all would take side by side.
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }
  [[nodiscard]] std::int64_t unshared() const;
  [[nodiscard]] std::int64_t offset(Id id) const { return buffers_[id].offset; }
  template <typename T>
  [[nodiscard]] T* at(Id id) const {
    return reinterpret_cast<T*>(memory_.get() + buffers_[id].offset);
  }

 private:
  struct Buffer {
    std::int64_t bytes = 0;  // a multiple of kAlignment
    std::vector<Span> lives;
    std::int64_t offset = 0;
    [[nodiscard]] bool meets(const Buffer& other) const;
  };
  struct Return {
    void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{kAlignment}); }
  };

  std::vector<Buffer> buffers_;
  std::int64_t bytes_ = 0;
  std::unique_ptr<std::byte[], Return> memory_;
};

}  // namespace premotor::engine
