// Working memory of passes through the autoencoder: blocks are taken, given back and taken again, and all are freed
// with their owner.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace premotor::engine::vae {

class Scratch {
 public:
  // A block of floats with undefined contents, given back when it goes out of scope. Must not outlive its Scratch.
  class Block {
   public:
    Block() = default;
    Block(Block&& other) noexcept { swap(other); }
    Block& operator=(Block&& other) noexcept {
      Block taken(std::move(other));
      swap(taken);
      return *this;
    }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    ~Block() {
      if (owner_ != nullptr) owner_->give_back(std::move(memory_));
    }
    [[nodiscard]] float* data() const { return memory_.floats.get(); }

   private:
    friend class Scratch;
    void swap(Block& other) noexcept {
      std::swap(owner_, other.owner_);
      std::swap(memory_, other.memory_);
    }
    struct Memory {
      std::unique_ptr<float[]> floats;
      std::int64_t capacity = 0;  // floats
    };
    Scratch* owner_ = nullptr;
    Memory memory_;
  };

  // The smallest free block that holds `floats`. Where all are too small, the largest of them is freed before a new one
  // is allocated, so that growing shapes do not leave a trail of unused blocks. Throws std::bad_alloc.
  Block take(std::int64_t floats) {
    const auto fits = std::find_if(free_.begin(), free_.end(), [&](const Memory& m) { return m.capacity >= floats; });
    Block block;
    if (fits != free_.end()) {
      block.memory_ = std::move(*fits);
      free_.erase(fits);
    } else {
      if (!free_.empty()) free_.pop_back();
      block.memory_ = {std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(floats)), floats};
    }
    free_.reserve(free_.size() + ++blocks_);  // so that giving back cannot fail
    block.owner_ = this;
    return block;
  }

 private:
  using Memory = Block::Memory;

  void give_back(Memory memory) noexcept {
    --blocks_;
    const auto place =
        std::find_if(free_.begin(), free_.end(), [&](const Memory& m) { return m.capacity >= memory.capacity; });
    free_.insert(place, std::move(memory));
  }

  std::vector<Memory> free_;  // by rising capacity
  std::size_t blocks_ = 0;    // handed out
};

}  // namespace premotor::engine::vae
