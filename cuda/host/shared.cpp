// See shared.h. A cell for each pair of bytes remembers the last write and the last reads.
#include "cuda/host/shared.h"

#include <cstring>
#include <string>
#include <vector>

namespace premotor::cuda::host {
namespace {

constexpr std::uint32_t kNobody = 0xffffffffu;
constexpr unsigned char kPoison = 0xff;  // all bits set are NaN in every float format here

enum class Content : std::uint8_t { none, copying, value };

struct Cell {
  Moment written{kNobody, 0, 0, 0};
  Moment read{kNobody, 0, 0, 0};
  bool by_many_lanes = false;  // reads since read.warp_meetings, by other lanes of that warp
  bool by_many_warps = false;  // reads since read.block_meetings, by other warps
  bool is_update = false;      // the last write was an atomic
  Content content = Content::none;
};

std::vector<unsigned char>& memory() {
  static std::vector<unsigned char> bytes;
  return bytes;
}
std::vector<Cell>& cells() {
  static std::vector<Cell> all;
  return all;
}

// Has `before` met `after` (which is now) since?
bool is_ordered(const Moment& before, const Moment& after) {
  return before.thread == kNobody || before.thread == after.thread || before.block_meetings != after.block_meetings ||
         (before.warp == after.warp && before.warp_meetings != after.warp_meetings);
}

bool reads_are_ordered(const Cell& cell, const Moment& after) {
  const Moment& read = cell.read;
  if (read.thread == kNobody || read.block_meetings != after.block_meetings) return true;
  if (cell.by_many_warps || read.warp != after.warp) return false;
  return read.warp_meetings != after.warp_meetings || (read.thread == after.thread && !cell.by_many_lanes);
}

std::string byte_name(std::uint32_t at) { return "byte " + std::to_string(at) + " of shared memory"; }
std::string other(const Moment& moment) { return "thread " + std::to_string(moment.thread); }

void check_bounds(const SharedArray& array, std::uint32_t at, std::uint32_t bytes, const Site& site) {
  if (at < array.begin || at > array.end || bytes > array.end - at || array.end > memory().size())
    raise(FaultKind::out_of_bounds,
          "bytes " + std::to_string(at) + " .. " + std::to_string(std::uint64_t{at} + bytes) + " of an array at " +
              std::to_string(array.begin) + " .. " + std::to_string(array.end) + ", of " +
              std::to_string(memory().size()) + " in all",
          site);
  if (at % 2 != 0 || bytes % 2 != 0) raise(FaultKind::misaligned, byte_name(at) + " is on no even boundary", site);
}

void mark_read(std::uint32_t at, std::uint32_t bytes, const Moment& moment, const Site& site) {
  for (std::uint32_t i = at / 2; i < (at + bytes) / 2; ++i) {
    Cell& cell = cells()[i];
    if (cell.content == Content::copying)
      raise(FaultKind::pending_copy, byte_name(i * 2) + " is read before the copy into it was waited for", site);
    if (cell.content == Content::none) raise(FaultKind::uninitialised, byte_name(i * 2) + " is read unwritten", site);
    if (!is_ordered(cell.written, moment))
      raise(FaultKind::race, byte_name(i * 2) + " is read, and " + other(cell.written) + " wrote it since they met",
            site);
    if (cell.read.thread == kNobody || cell.read.block_meetings != moment.block_meetings) {
      cell.read = moment;
      cell.by_many_lanes = cell.by_many_warps = false;
    } else if (cell.read.warp != moment.warp) {
      cell.by_many_warps = true;
    } else if (cell.read.warp_meetings != moment.warp_meetings) {
      cell.read = moment;
      cell.by_many_lanes = false;
    } else if (cell.read.thread != moment.thread) {
      cell.by_many_lanes = true;
    }
  }
}

void mark_write(std::uint32_t at, std::uint32_t bytes, const Moment& moment, Content content, bool is_update,
                const Site& site) {
  for (std::uint32_t i = at / 2; i < (at + bytes) / 2; ++i) {
    Cell& cell = cells()[i];
    const bool both_update = is_update && cell.is_update;
    if (!both_update && !is_ordered(cell.written, moment))
      raise(FaultKind::race, byte_name(i * 2) + " is written, and " + other(cell.written) + " wrote it since they met",
            site);
    if (!reads_are_ordered(cell, moment))
      raise(FaultKind::race, byte_name(i * 2) + " is written, and " + other(cell.read) + " read it since they met",
            site);
    cell.written = moment;
    cell.content = content;
    cell.is_update = is_update;
  }
}

void finish_copy(const PendingCopy& copy, const Site& at) {
  mark_write(copy.to, copy.bytes, now(), Content::value, false, at);
  unsigned char* to = memory().data() + copy.to;
  if (copy.from_bytes > 0) std::memcpy(to, copy.from, copy.from_bytes);
  std::memset(to + copy.from_bytes, 0, copy.bytes - copy.from_bytes);
}

}  // namespace

void reset_shared(std::uint32_t bytes) {
  memory().assign(bytes, kPoison);
  cells().assign((bytes + 1) / 2, {});
}

void read_shared(const SharedArray& array, std::uint32_t at, std::uint32_t bytes, void* to, const Site& site) {
  check_bounds(array, at, bytes, site);
  mark_read(at, bytes, now(), site);
  std::memcpy(to, memory().data() + at, bytes);
}

void write_shared(const SharedArray& array, std::uint32_t at, std::uint32_t bytes, const void* from, const Site& site) {
  check_bounds(array, at, bytes, site);
  mark_write(at, bytes, now(), Content::value, false, site);
  std::memcpy(memory().data() + at, from, bytes);
}

void update_shared(const SharedArray& array, std::uint32_t at, std::uint32_t bytes, void (*update)(void* value, void*),
                   void* argument, const Site& site) {
  check_bounds(array, at, bytes, site);
  const Moment moment = now();
  for (std::uint32_t i = at / 2; i < (at + bytes) / 2; ++i)
    if (cells()[i].content != Content::value) mark_read(at, bytes, moment, site);
  mark_write(at, bytes, moment, Content::value, true, site);
  update(memory().data() + at, argument);
}

void start_copy(const SharedArray& array, std::uint32_t at, std::uint32_t bytes, const void* from,
                std::uint32_t from_bytes, const Site& site) {
  check_bounds(array, at, bytes, site);
  if (from_bytes > bytes) raise(FaultKind::out_of_bounds, "a copy of more bytes than it has room for", site);
  if (at % bytes != 0 || (from_bytes > 0 && reinterpret_cast<std::uintptr_t>(from) % bytes != 0))
    raise(FaultKind::misaligned, "a copy's ends are not on a boundary of its size", site);
  mark_write(at, bytes, now(), Content::copying, false, site);
  std::memset(memory().data() + at, kPoison, bytes);
  add_copy({at, bytes, from, from_bytes});
}

void wait_copies_but(std::uint32_t groups, const Site& site) { wait_copies(groups, finish_copy, site); }

void check_row(const SharedArray& array, std::uint32_t at, const Site& site) {
  check_bounds(array, at, 16, site);
  if (at % 16 != 0) raise(FaultKind::misaligned, byte_name(at) + " begins no matrix row", site);
}

}  // namespace premotor::cuda::host
