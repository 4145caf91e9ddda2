// The scheduler of the host's machine. See machine.h.
#include "cuda/host/machine.h"

#include <algorithm>
#include <array>
#include <bit>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "cuda/host/fibre.h"
#include "cuda/host/shared.h"

namespace premotor::cuda::host {
namespace {

constexpr std::uint32_t kLanes = 32;
constexpr std::uint32_t kThreadsMax = 1024;
constexpr std::uint32_t kFull = 0xffffffffu;

enum class State : std::uint8_t { ready, at_barrier, at_mask, ended };

struct Thread {
  Fibre fibre;
  Dim3 index;
  std::uint32_t number = 0;
  State state = State::ready;
  const char* waits_for = "";
  Site at;
  std::deque<std::vector<PendingCopy>> groups;  // closed ones, oldest first
  std::vector<PendingCopy> open;
};

// Lanes of one mask that have come.
struct Group {
  std::uint32_t mask = 0, come = 0;
  Exchange exchange = nullptr;
  const char* what = "";
  Site at;
  std::array<void*, kLanes> brought{};
};

struct Warp {
  std::uint32_t meetings = 0;
  std::vector<Group> groups;
};

struct Machine {
  Settings settings;
  Counters counters;
  Fault fault;
  bool is_broken = false;
  Dim3 grid, block, block_index;
  std::uint32_t threads = 0, ended = 0, block_meetings = 0, at_barrier = 0;
  Site barrier;
  std::vector<std::unique_ptr<Thread>> pool;
  std::vector<Warp> warps;
  std::vector<std::uint32_t> ready;
  Thread* current = nullptr;
  const std::function<void()>* kernel = nullptr;
  std::mt19937_64 random;
};

Machine& machine() {
  static Machine only;
  return only;
}

std::string place(const Site& at) {
  const std::string path = at.file_name();
  return path.substr(path.rfind('/') + 1) + ":" + std::to_string(at.line());
}

std::string person(const Thread& t) {
  return "thread " + std::to_string(t.number) + " (warp " + std::to_string(t.number / kLanes) + ", lane " +
         std::to_string(t.number % kLanes) + ")";
}

void note_fault(FaultKind kind, const std::string& message) {
  Machine& m = machine();
  if (m.fault.kind == FaultKind::none) {
    const Dim3& b = m.block_index;
    m.fault = {kind, std::string(name_of(kind)) + ": " + message + ", block " + std::to_string(b.x) + "," +
                         std::to_string(b.y) + "," + std::to_string(b.z)};
  }
  m.is_broken = true;
}

bool same_place(const Site& a, const Site& b) {
  return a.line() == b.line() && std::string_view(a.file_name()) == b.file_name();
}

void make_ready(Thread& t) {
  t.state = State::ready;
  machine().ready.push_back(t.number);
}

// Takes a fibre out of its kernel at a fault, so that what lies on its stack is destroyed. Thrown and caught on the
// same stack, without a switch in between.
struct Abandoned {};

void thread_body(void* argument) {
  auto& self = *static_cast<Thread*>(argument);
  try {
    (*machine().kernel)();
    const bool is_copying = !self.open.empty() || std::any_of(self.groups.begin(), self.groups.end(),
                                                              [](const auto& group) { return !group.empty(); });
    if (is_copying)
      raise(FaultKind::pending_copy, "the thread ended before it waited for its asynchronous copies", self.at);
  } catch (const Abandoned&) {
  }
  self.state = State::ended;
  ++machine().ended;
  self.fibre.finish();
}

// The next thread: any of the ready ones, or without a seed the one of the lowest number.
Thread& take_ready() {
  Machine& m = machine();
  std::size_t at = 0;
  if (m.settings.seed != 0) {
    at = m.random() % m.ready.size();
  } else {
    at = static_cast<std::size_t>(std::min_element(m.ready.begin(), m.ready.end()) - m.ready.begin());
  }
  std::swap(m.ready[at], m.ready.back());
  Thread& next = *m.pool[m.ready.back()];
  m.ready.pop_back();
  return next;
}

// Nobody can go on: somebody waits for one that does not come.
void explain_standstill() {
  Machine& m = machine();
  const Thread *waiting = nullptr, *other = nullptr;
  const auto threads = m.pool.begin() + m.threads;
  for (auto at = m.pool.begin(); at != threads; ++at) {
    const Thread& t = **at;
    if (t.state == State::ended) continue;
    if (waiting == nullptr || (t.state == State::at_barrier && waiting->state != State::at_barrier)) waiting = &t;
  }
  for (auto at = m.pool.begin(); at != threads; ++at) {
    const Thread& t = **at;
    if (t.state == waiting->state && same_place(t.at, waiting->at)) continue;
    if (other == nullptr || (t.number / kLanes == waiting->number / kLanes)) other = &t;
    if (t.number / kLanes == waiting->number / kLanes) break;
  }
  std::string text = person(*waiting) + " waits for " + waiting->waits_for + " at " + place(waiting->at);
  if (other != nullptr)
    text += other->state == State::ended
                ? ", but " + person(*other) + " has ended"
                : ", but " + person(*other) + " waits for " + other->waits_for + " at " + place(other->at);
  note_fault(waiting->state == State::at_barrier ? FaultKind::divergent_barrier : FaultKind::wrong_mask, text);
}

void run_block() {
  Machine& m = machine();
  m.ended = m.block_meetings = m.at_barrier = 0;
  m.ready.clear();
  m.warps.assign((m.threads + kLanes - 1) / kLanes, {});
  for (std::uint32_t i = 0; i < m.threads; ++i) {
    Thread& t = *m.pool[i];
    t.number = i;
    t.index = {i % m.block.x, i / m.block.x % m.block.y, i / (m.block.x * m.block.y)};
    t.groups.clear();
    t.open.clear();
    t.fibre.start(thread_body, &t);
    make_ready(t);
  }
  while (!m.ready.empty() && !m.is_broken) {
    m.current = &take_ready();
    m.current->fibre.resume();
  }
  m.current = nullptr;
  if (!m.is_broken && m.ended < m.threads) explain_standstill();
  ++m.counters.blocks;
}

bool fits(Dim3 grid, Dim3 block, std::uint32_t shared_bytes) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  return threads >= 1 && threads <= kThreadsMax && grid.x >= 1 && grid.y >= 1 && grid.z >= 1 && grid.y <= 65535 &&
         grid.z <= 65535 && shared_bytes <= machine().settings.shared_bytes_max;
}

}  // namespace

const char* name_of(FaultKind kind) {
  constexpr const char* kNames[] = {"none",          "race",       "uninitialised",     "pending_copy",
                                    "out_of_bounds", "misaligned", "divergent_barrier", "wrong_mask",
                                    "bad_launch"};
  return kNames[static_cast<std::size_t>(kind)];
}

Settings& settings() { return machine().settings; }
Counters& counters() { return machine().counters; }
Fault take_fault() { return std::exchange(machine().fault, {}); }

bool run(Dim3 grid, Dim3 block, std::uint32_t shared_bytes, const std::function<void()>& kernel) {
  Machine& m = machine();
  m.is_broken = false;
  m.block_index = {0, 0, 0};
  if (!fits(grid, block, shared_bytes)) {
    note_fault(FaultKind::bad_launch, "a grid, a block or " + std::to_string(shared_bytes) +
                                          " bytes of shared memory that the device does not take");
    return false;
  }
  ++m.counters.launches;
  m.grid = grid;
  m.block = block;
  m.threads = block.x * block.y * block.z;
  m.counters.sizes.insert({m.threads, shared_bytes});
  m.kernel = &kernel;
  m.random.seed(m.settings.seed);
  while (m.pool.size() < m.threads) m.pool.push_back(std::make_unique<Thread>());
  std::vector<std::uint64_t> blocks(std::uint64_t{grid.x} * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), std::uint64_t{0});
  if (m.settings.seed != 0) std::shuffle(blocks.begin(), blocks.end(), m.random);
  for (const std::uint64_t number : blocks) {
    m.block_index = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                     static_cast<unsigned>(number / grid.x / grid.y)};
    reset_shared(shared_bytes);
    run_block();
    if (m.is_broken) return false;
  }
  return true;
}

const Dim3& thread_index() { return machine().current->index; }
const Dim3& block_index() { return machine().block_index; }
const Dim3& block_size() { return machine().block; }
const Dim3& grid_size() { return machine().grid; }

void raise(FaultKind kind, const std::string& message, const Site& at) {
  Machine& m = machine();
  note_fault(kind, message + ", by " + person(*m.current) + " at " + place(at));
  throw Abandoned{};
}

Moment now() {
  const Machine& m = machine();
  const std::uint32_t number = m.current->number, warp = number / kLanes;
  return {number, warp, m.block_meetings, m.warps[warp].meetings};
}

void meet_block(const Site& at) {
  Machine& m = machine();
  Thread& self = *m.current;
  self.state = State::at_barrier;
  self.waits_for = "__syncthreads";
  self.at = at;
  if (m.at_barrier == 0) m.barrier = at;
  if (!same_place(m.barrier, at))
    raise(FaultKind::divergent_barrier, "other threads of the block wait at " + place(m.barrier), at);
  if (++m.at_barrier == m.threads) {
    m.at_barrier = 0;
    ++m.block_meetings;
    for (std::uint32_t i = 0; i < m.threads; ++i) make_ready(*m.pool[i]);
  }
  self.fibre.give_way();
}

void meet_warp(const char* what, std::uint32_t mask, Exchange exchange, void* brought, const Site& at) {
  Machine& m = machine();
  Thread& self = *m.current;
  const std::uint32_t lane = self.number % kLanes, first = self.number - lane;
  Warp& warp = m.warps[self.number / kLanes];
  const std::uint32_t lanes = std::min(kLanes, m.threads - first);
  if ((mask >> lane & 1) == 0) raise(FaultKind::wrong_mask, std::string(what) + ": the lane is not in its mask", at);
  if (lanes < kLanes && (mask >> lanes) != 0)
    raise(FaultKind::wrong_mask, std::string(what) + ": the mask has lanes that the block has not", at);
  auto group = std::find_if(warp.groups.begin(), warp.groups.end(), [&](const Group& g) { return g.mask == mask; });
  if (group == warp.groups.end()) group = warp.groups.insert(group, Group{mask, 0, exchange, what, at, {}});
  if (group->exchange != exchange || !same_place(group->at, at))
    raise(FaultKind::wrong_mask,
          std::string(what) + ": other lanes of the mask wait for " + group->what + " at " + place(group->at), at);
  self.state = State::at_mask;
  self.waits_for = what;
  self.at = at;
  group->come |= 1u << lane;
  group->brought[lane] = brought;
  if (group->come == mask) {
    const Group complete = *group;
    warp.groups.erase(group);
    if (exchange != nullptr) exchange(complete.brought.data(), mask);
    for (std::uint32_t left = mask; left != 0; left &= left - 1)
      make_ready(*m.pool[first + static_cast<std::uint32_t>(std::countr_zero(left))]);
  }
  self.fibre.give_way();
}

void meet_warp_in_memory(std::uint32_t mask, const Site& at) {
  // Runs once, when all have come: `now` would name one of them, and all are of one warp.
  meet_warp(
      "__syncwarp", mask,
      [](void* const*, std::uint32_t met) {
        if (met == kFull) ++machine().warps[now().warp].meetings;
      },
      nullptr, at);
}

void add_copy(const PendingCopy& copy) { machine().current->open.push_back(copy); }

void close_copies() {
  Thread& self = *machine().current;
  self.groups.push_back(std::exchange(self.open, {}));
}

void wait_copies(std::uint32_t kept, void (*finish)(const PendingCopy& copy, const Site& at), const Site& at) {
  Thread& self = *machine().current;
  self.at = at;
  while (self.groups.size() > kept) {
    for (const PendingCopy& copy : self.groups.front()) finish(copy, at);
    self.groups.pop_front();
  }
}

}  // namespace premotor::cuda::host
