// The timeline ring: order, refusal when full, validation of foreign memory, and two threads that hammer it.
// PREMOTOR_TIMELINE_CHUNKS changes how many chunks pass, PREMOTOR_SEED the seed.
#include "stream/timeline.h"

#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "stream_random.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::stream;
using namespace stream_test;

namespace {

struct alignas(Timeline::kAlignment) Block {
  unsigned char bytes[Timeline::kAlignment];
};

std::unique_ptr<Block[]> memory() { return std::make_unique<Block[]>(Timeline::bytes() / sizeof(Block) + 1); }

// A chunk whose every value follows from its sequence number, so that a torn copy shows.
void fill(Chunk* chunk, std::uint64_t sequence) {
  ChunkHeader& h = chunk->header;
  h.sequence = sequence, h.liveness = sequence * 3;
  h.splice_ns = static_cast<std::int64_t>(sequence * 5), h.start_ns = h.splice_ns + 1, h.deadline_ns = h.splice_ns + 2;
  h.knot_period_ns = 20, h.knot_count = kKnotsMax, h.joint_count = kJointsMax;
  for (std::size_t k = 0; k < kKnotsMax; ++k) chunk->knots[k].fill(static_cast<double>(sequence * 1000 + k));
}

bool is_whole(const Chunk& chunk) {
  const ChunkHeader& h = chunk.header;
  bool whole = h.liveness == h.sequence * 3 && h.splice_ns == static_cast<std::int64_t>(h.sequence * 5) &&
               h.start_ns == h.splice_ns + 1 && h.deadline_ns == h.splice_ns + 2 && h.knot_count == kKnotsMax;
  for (std::size_t k = 0; k < kKnotsMax; ++k)
    for (const double value : chunk.knots[k]) whole = whole && value == static_cast<double>(h.sequence * 1000 + k);
  return whole;
}

void test_order() {
  const auto block = memory();
  Timeline producer, consumer;
  tap::ok(Timeline::create(block.get(), Timeline::bytes(), &producer).ok(), "a ring is made");
  tap::ok(Timeline::attach(block.get(), Timeline::bytes(), &consumer).ok(), "and attached");
  const auto chunk = std::make_unique<Chunk>();
  tap::ok(!consumer.pop(chunk.get()), "it is empty");
  bool ok = true;
  for (std::uint64_t round = 0; round < 3; ++round) {
    for (std::uint64_t i = 0; i < Timeline::kSlots; ++i) {
      fill(chunk.get(), round * 100 + i);
      ok = ok && producer.push(*chunk);
    }
    fill(chunk.get(), 999);
    ok = ok && !producer.push(*chunk);
    for (std::uint64_t i = 0; i < Timeline::kSlots; ++i)
      ok = ok && consumer.pop(chunk.get()) && chunk->header.sequence == round * 100 + i && is_whole(*chunk);
    ok = ok && !consumer.pop(chunk.get());
  }
  tap::ok(ok, "chunks come out in order, a full ring refuses, an empty one gives nothing");
}

void test_validation() {
  const auto block = memory();
  Timeline timeline;
  const auto code = [&](std::size_t size_bytes) {
    return std::string(Timeline::attach(block.get(), size_bytes, &timeline).code);
  };
  tap::equal(code(Timeline::bytes()), std::string("STREAM_TIMELINE"), "memory without a ring is refused");
  tap::ok(!Timeline::create(block.get(), Timeline::bytes() - 1, &timeline).ok(), "too little memory is refused");
  tap::ok(Timeline::create(block.get(), Timeline::bytes(), &timeline).ok(), "enough is not");
  tap::equal(code(64), std::string("STREAM_TIMELINE"), "attaching to too little is refused");
  tap::equal(code(Timeline::bytes()), std::string(""), "a ring is recognised");
  const auto chunk = std::make_unique<Chunk>();
  block[0].bytes[8] = 2;
  tap::equal(code(Timeline::bytes()), std::string("STREAM_TIMELINE"), "another version is refused");
  block[0].bytes[8] = 1;
  block[0].bytes[12] ^= 1;
  tap::equal(code(Timeline::bytes()), std::string("STREAM_TIMELINE"), "and another layout");
  block[0].bytes[12] ^= 1;
  tap::equal(code(Timeline::bytes()), std::string(""), "the ring is whole again");
  std::memset(block[1].bytes, 0xff, 8);
  tap::ok(!timeline.pop(chunk.get()), "an index that cannot be counts as empty");
}

void test_threads(Random& random, std::uint64_t chunks) {
  const auto block = memory();
  Timeline producer, consumer;
  tap::ok(Timeline::create(block.get(), Timeline::bytes(), &producer).ok() &&
              Timeline::attach(block.get(), Timeline::bytes(), &consumer).ok(),
          "a ring for two threads");
  const auto pauses = static_cast<std::uint64_t>(random.below(1 << 30));
  std::thread writer([&] {
    const auto chunk = std::make_unique<Chunk>();
    Random mine(pauses);
    for (std::uint64_t i = 1; i <= chunks; ++i) {
      fill(chunk.get(), i);
      while (!producer.push(*chunk)) std::this_thread::yield();
      if (mine.below(16) == 0) std::this_thread::yield();
    }
  });
  const auto chunk = std::make_unique<Chunk>();
  Random mine(pauses + 1);
  bool whole = true, ordered = true;
  for (std::uint64_t next = 1; next <= chunks;) {
    if (!consumer.pop(chunk.get())) {
      std::this_thread::yield();
      continue;
    }
    whole = whole && is_whole(*chunk);
    ordered = ordered && chunk->header.sequence == next++;
    if (mine.below(16) == 0) std::this_thread::yield();
  }
  writer.join();
  tap::ok(whole, std::to_string(chunks) + " chunks pass between two threads untorn");
  tap::ok(ordered, "each once, in order");
  tap::ok(!consumer.pop(chunk.get()), "and then no more");
}

}  // namespace

int main() {
  Random random = seeded(20250103);
  test_order();
  test_validation();
  test_threads(random, static_cast<std::uint64_t>(from_environment("PREMOTOR_TIMELINE_CHUNKS", 5000)));
  return tap::finish();
}
