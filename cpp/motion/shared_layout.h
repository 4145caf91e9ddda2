// The bytes that the stream process and its supervisor share (docs/STREAM.md, "Shared memory"): plain data of fixed
// size, no pointer, no bool, no enum that a reader could not bear to be wrong. Only shared_memory.cpp looks inside.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "motion/sample_ring.h"
#include "motion/seqlock.h"
#include "motion/shared_memory.h"

namespace premotor::motion {

inline constexpr std::uint64_t kSharedMagic = 0x6d6165727473706d;  // "mpstream", little-endian
inline constexpr std::uint32_t kSharedVersion = 2;
inline constexpr std::size_t kLine = 64;  // bytes: what one side writes never shares a cache line with the other's
inline constexpr int kWarningsMax = 8;

using SharedText = std::array<char, 224>;

struct SharedWarning {
  SharedCode code;
  SharedText text;
};

struct SharedCommand {
  std::uint64_t generation;  // of the attachment that sent it
  std::uint32_t kind;        // CommandKind
  std::uint32_t category;    // StopCategory, of a stop; pm_indication, of an indicate
  std::uint64_t liveness;
  std::int64_t until_ns;
};

struct SharedExecuted {
  std::uint64_t sequence;
  std::int64_t time_ns;
  std::int32_t knot;
  std::uint32_t is_clamped;
  std::array<double, stream::kJointsMax> position;
};

struct SharedStatus {
  std::int64_t time_ns;
  std::int64_t setpoint_time_ns;
  std::uint64_t sequence, newest_sequence;
  std::uint32_t beat;
  std::uint8_t stream, link, bridge, newest_refusal;
  std::uint8_t is_at_rest, is_setpoint_valid;
  std::uint8_t link_fault, link_result, link_axis, link_detail;
  SharedCode fault_code, link_code;
  std::array<double, stream::kJointsMax> position, velocity;
  std::array<std::uint8_t, stream::kJointsMax> clamped;
  LinkMeasured measured;
  stream::StreamCounts counts;
  LinkCounts link_counts;
  LoopCounts loop;
};

// One writer. Readers may see a sample counted in one place and not yet in another.
struct SharedHistogram {
  std::array<std::atomic<std::uint64_t>, stream::Histogram::kBuckets> counts;
  std::atomic<std::uint64_t> saturated_count;
  std::atomic<std::int64_t> min_ns, max_ns;
  std::atomic<double> sum_ns;
};

struct SharedLayout {
  // Written before the file gets its name, and never again.
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t layout_bytes;  // of everything, the timeline behind this struct included
  std::uint32_t joints;
  std::uint32_t pid;
  std::int64_t period_ns, lead_ns;
  std::uint64_t configuration_hash;
  std::uint32_t warning_count;
  std::array<SharedWarning, kWarningsMax> warnings;
  // generation << 32 | pid of the supervisor, pid 0 when none is attached. Written by supervisors.
  alignas(kLine) std::atomic<std::uint64_t> attachment;
  // Supervisor -> stream; overflow: refused.
  alignas(kLine) std::atomic<std::uint64_t> commands_written;
  alignas(kLine) std::atomic<std::uint64_t> commands_read;
  alignas(kLine) std::array<SharedCommand, kCommandsMax> commands;
  // Stream -> supervisor; overflow: the oldest is lost, and the reader counts it.
  alignas(kLine) std::atomic<std::uint64_t> executed_written;
  alignas(kLine) std::atomic<std::uint64_t> executed_read;
  alignas(kLine) std::array<Seqlock<SharedExecuted>, stream::Stream::kExecutedMax> executed;
  alignas(kLine) Seqlock<SharedStatus> status;
  alignas(kLine) std::array<SharedHistogram, kHistograms> histograms;
  // Stream -> supervisor; overflow: the oldest is lost, and the reader counts it.
  alignas(kLine) SampleRing samples;
};

}  // namespace premotor::motion
