// The one mapping between a stream process and its supervisor: timeline, commands, executed knots, status,
// histograms, samples of the motion. SharedStream is the process' end, SharedClient the supervisor's. Every number from
// the other side is bounded before use; neither side ever waits for the other.
//
// Who is alive is said by locks of the file, which the kernel releases with their owner, however it ends: one by the
// stream process, one by the supervisor. So there is one of each, and a successor may come as soon as its predecessor
// is gone. An attachment changes nothing in the motion.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "motion/motion.h"
#include "motion/sample_ring.h"
#include "stream/histogram.h"
#include "stream/timeline.h"

namespace premotor::motion {

inline constexpr int kCommandsMax = 64;

enum class CommandKind : std::uint32_t { arm = 1, stop = 2, estop = 3, beat = 4, indicate = 5 };

struct Command {
  CommandKind kind = CommandKind::stop;
  StopCategory category = StopCategory::one;  // of a stop
  std::uint64_t liveness = 0;                 // of an arm
  std::int64_t until_ns = 0;                  // of a beat
  std::uint32_t indication = 0;               // of an indicate: pm_indication
};

// What the loop measures, in nanoseconds.
enum class Measure : int {
  wake_up,    // from the time that the loop asked to be woken at to the time that it was
  cycle,      // the work of one cycle
  frame_age,  // from a setpoint's planned departure (its time - lead) to its frames having been handed to the bus
};
inline constexpr int kHistograms = 3;

// Since the process started.
struct LoopCounts {
  std::uint64_t cycles = 0;
  std::uint64_t skipped = 0;           // cycles that the loop slept through
  std::uint64_t commands_taken = 0;    // commands of any kind, carried out or refused
  std::uint64_t commands_refused = 0;  // of an unknown kind, or by somebody who is not attached any more
};

// Fixed when the process starts.
struct SharedInfo {
  int joints = 0;
  std::int64_t period_ns = 0;
  std::int64_t lead_ns = 0;
  std::uint32_t pid = 0;
  std::uint64_t configuration_hash = 0;  // FNV-1a of the configuration's text
};

// A warning as it comes out of the memory.
struct Notice {
  std::string code, message;
};

struct Attachment {
  std::uint32_t pid = 0;  // 0: nobody
  std::uint32_t generation = 0;
};

using SharedCode = std::array<char, 32>;  // ends with 0

// A status with what its texts point to: it stays where it is.
struct StreamReport {
  StreamReport() = default;
  StreamReport(const StreamReport&) = delete;
  StreamReport& operator=(const StreamReport&) = delete;

  MotionStatus motion;
  stream::StreamCounts counts;
  LinkCounts link;
  LoopCounts loop;

  SharedCode fault_code{}, link_code{};
};

struct SharedLayout;

// A mapped file, unmapped and closed when it goes out of scope.
class Mapping {
 public:
  Mapping() = default;
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  // Maps `bytes` of an open file and owns it from then on, also when it fails.
  [[nodiscard]] bool map(int fd, std::size_t bytes);
  [[nodiscard]] SharedLayout* layout() const { return static_cast<SharedLayout*>(address_); }
  // Behind the layout: the timeline.
  [[nodiscard]] void* timeline() const;
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_ = -1;
  void* address_ = nullptr;
  std::size_t bytes_ = 0;
};

// FNV-1a, 64 bits (Fowler, Noll and Vo): tells one configuration from another, no secret.
std::uint64_t configuration_hash(const std::string& text);

// Where the file is when nobody says: in the user's runtime folder, else in shared memory under the user's number.
std::string default_shared_path();

class SharedStream {
 public:
  // Makes the memory for one stream process; nobody sees it before announce(). Errors: STREAM_PROCESS_BUSY (another
  // stream process has this path), STREAM_PROCESS_MEMORY.
  static Status create(const std::string& path, const SharedInfo& info, std::unique_ptr<SharedStream>* out);
  // Takes the file away; whoever has it mapped keeps what it last held.
  ~SharedStream();
  SharedStream(const SharedStream&) = delete;
  SharedStream& operator=(const SharedStream&) = delete;

  // Before announce(): what did not work out when the process started. At most 8.
  void set_warnings(const std::vector<Status>& warnings);
  // Gives the file its name. Errors: STREAM_PROCESS_MEMORY.
  Status announce();

  [[nodiscard]] const stream::Timeline& timeline() const { return timeline_; }
  [[nodiscard]] Attachment attachment() const;

  // The loop's side: no memory, no lock, no wait.
  // The oldest command that was not taken yet; false when there is none. Refused ones are counted and left out.
  [[nodiscard]] bool take(Command* out);
  void record(Measure measure, std::int64_t value_ns);
  void publish_executed(const stream::Executed& one);
  // Once per cycle: the status, and a sample. `loop`: cycles and skipped; the commands are counted here.
  void publish(const Motion& motion, const LoopCounts& loop);

 private:
  SharedStream() = default;

  std::string path_, hidden_path_;
  int lock_fd_ = -1;
  bool is_announced_ = false;
  Mapping mapping_;
  stream::Timeline timeline_;
  std::uint64_t commands_read_ = 0;  // the memory has copies of these two for the other side, which are not read back
  std::uint64_t executed_written_ = 0;
  SampleWriter samples_;
  LoopCounts commands_;
};

class SharedClient {
 public:
  // Attaches to a running stream process, as its one supervisor. Errors: STREAM_PROCESS_MISSING,
  // STREAM_PROCESS_VERSION, STREAM_PROCESS_BUSY (another supervisor is attached), STREAM_PROCESS_MEMORY.
  static Status attach(const std::string& path, std::unique_ptr<SharedClient>* out);
  ~SharedClient();
  SharedClient(const SharedClient&) = delete;
  SharedClient& operator=(const SharedClient&) = delete;

  [[nodiscard]] const SharedInfo& info() const { return info_; }
  [[nodiscard]] std::uint32_t generation() const { return generation_; }
  // Does the stream process that this is attached to still run?
  [[nodiscard]] bool is_alive() const;
  [[nodiscard]] std::vector<Notice> warnings() const;

  // False when the ring is full: the stream has stopped reading.
  [[nodiscard]] bool push(const stream::Chunk& chunk) { return timeline_.push(chunk); }
  [[nodiscard]] bool send(const Command& command);

  // The oldest executed knot that no supervisor took yet; false when there is none.
  [[nodiscard]] bool executed(stream::Executed* out);
  [[nodiscard]] std::uint64_t executed_lost() const { return executed_lost_; }
  // The oldest cycle since this attached that was not taken yet; false when there is none.
  [[nodiscard]] bool sample(MotionSample* out);
  [[nodiscard]] std::uint64_t samples_lost() const { return samples_.lost(); }
  // False, and nothing changes, when the stream process died while it wrote.
  [[nodiscard]] bool status(StreamReport* out) const;
  void histogram(Measure measure, stream::Histogram* out) const;

 private:
  SharedClient() = default;

  SharedInfo info_;
  std::uint32_t generation_ = 0;
  Mapping mapping_;
  stream::Timeline timeline_;
  std::uint64_t executed_lost_ = 0;
  SampleReader samples_;
};

}  // namespace premotor::motion
