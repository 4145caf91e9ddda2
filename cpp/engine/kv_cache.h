// The KV cache: a transaction log over a pool of token slots with the reference's exact semantics (docs/MODEL.md
// section 5).
//
// Two numberings keep speculation free of copies. A *slot* is the reference's slot, 0 .. capacity-1: free slots are
// taken in ascending order, and when too few are free the valid tokens with the lowest ids are evicted. A *row* is
// where a token's keys and values lie in memory; there are a few more rows than slots, so that a write under a mark
// never overwrites what the marked state still needs. mark, rollback and release only switch between tables of row
// numbers: O(1), whatever was appended or evicted in between.
//
// A slot's token lies in the row of the same number unless a marked state still needs that row. So a committed token,
// which is written without marks and after every predicted one is dropped, always does.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "ops/kv_layout.h"
#include "ops/ops.h"

namespace premotor::engine {

// The reference's update_cache: a temporary write is undone by end_write, a predicted one is dropped by
// clear_predicted, a committed one stays.
enum class WriteKind : std::uint8_t { temporary = 0, predicted = 1, committed = 2 };

struct KvCacheShape {
  std::int64_t layers = 0;
  std::int64_t guidance_rows = 1;  // 2 with guidance: separate keys and values per row
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t capacity = 0;  // slots
  std::int64_t headroom = 0;  // rows beyond capacity, for speculation
  ops::Dtype dtype = ops::Dtype::f32;
};

struct KvCounts {
  std::int64_t capacity, valid, committed, predicted;
};

class KvCache {
 public:
  // Marks that can be open at once.
  static constexpr int kMarksMax = 6;

  // Reserves the pool (zero pages: memory is used as it fills). Errors: OUT_OF_MEMORY.
  static Status open(const KvCacheShape& shape, std::unique_ptr<KvCache>* out);

  // Forgets everything, marks included.
  void clear();

  // Takes `count` slots for one write and makes them valid under id = max(valid ids) + 1. Evicts first when too few are
  // free; the eviction stays even if the write is temporary. Until end_write the new tokens are valid. Errors:
  // CACHE_TOO_SMALL (count > capacity, or headroom used up).
  Status begin_write(std::int64_t count, WriteKind kind);
  // The rows of the write that is open, ascending slots: [count].
  [[nodiscard]] const std::vector<std::int32_t>& write_rows() const { return write_rows_; }
  // Its slots, ascending: [count].
  [[nodiscard]] const std::vector<std::int32_t>& write_slots() const { return write_slots_; }
  // All valid tokens, what attention reads: bit s % 32 of word s / 32 of slot s, [rows() / 32], and the slots among
  // them that lie in other rows than their own, ascending.
  [[nodiscard]] const std::vector<std::uint32_t>& attended() const { return attended_; }
  [[nodiscard]] const std::vector<ops::MovedSlot>& moved() const { return moved_; }
  // Ends the write; a temporary one becomes free again.
  void end_write();
  // Drops every predicted token.
  void clear_predicted();

  // Opens a speculation. rollback returns to the state at the matching mark; release keeps the state and forgets the
  // mark.
  void mark();
  void rollback();
  void release();
  [[nodiscard]] int marks() const { return depth_; }

  [[nodiscard]] KvCounts counts() const;
  // FNV-1a of `frame_index` and of slot and id of every committed token, ascending slots: equal for equal histories.
  [[nodiscard]] std::uint64_t checksum(std::uint64_t frame_index) const;
  // Small values of no meaning as keys and values of the write that is open, for measuring.
  void fill_written(std::uint64_t seed);
  [[nodiscard]] const KvCacheShape& shape() const { return shape_; }
  [[nodiscard]] std::int64_t size_bytes() const;

  // Keys and values of one layer and guidance row, in the layout of layout().
  [[nodiscard]] void* keys(std::int64_t layer, std::int64_t guidance_row);
  [[nodiscard]] void* values(std::int64_t layer, std::int64_t guidance_row);
  [[nodiscard]] std::int64_t rows() const { return ops::kv_rows(shape_.capacity + shape_.headroom); }
  // The key, or the value, of one row and head as it is stored, [head_dim], appended to `out`: for traces and benches.
  void read_entry(bool is_key, std::int64_t layer, std::int64_t guidance_row, std::int64_t head, std::int64_t row,
                  std::vector<float>* out);
  [[nodiscard]] ops::KvLayout layout() const { return {shape_.heads, rows(), shape_.head_dim, shape_.dtype}; }

  // Per slot, for traces and tests: id (-1 when free), predicted flag, row.
  struct SlotState {
    std::vector<std::int32_t> id;
    std::vector<std::uint8_t> predicted;
    std::vector<std::int32_t> row;
  };
  [[nodiscard]] const SlotState& slots() const;

 private:
  explicit KvCache(const KvCacheShape& shape);
  SlotState& writable();
  void evict(SlotState& state, std::int64_t need);
  bool take_rows(const std::vector<std::int32_t>& slots);

  KvCacheShape shape_;
  struct Unmap {
    std::size_t size;
    void operator()(std::byte* pool) const;
  };
  std::unique_ptr<std::byte, Unmap> pool_{nullptr, Unmap{0}};
  std::size_t key_bytes_ = 0, value_bytes_ = 0;  // of one plane
  // states_[i] is the state at mark i; a state is written only when it is owned (a mark shares the state below until
  // the first change).
  std::vector<SlotState> states_;
  std::vector<bool> owned_;
  int depth_ = 0;
  WriteKind write_kind_ = WriteKind::temporary;
  bool writing_ = false;
  std::vector<std::int32_t> write_slots_;
  std::vector<std::int32_t> write_rows_;
  std::vector<std::uint32_t> attended_;
  std::vector<ops::MovedSlot> moved_;
  std::vector<std::uint8_t> busy_;  // [rows] scratch
};

}  // namespace premotor::engine
