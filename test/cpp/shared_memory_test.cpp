// The memory between stream process and supervisor: who may have it, what arrives through it, what a dead or hostile
// other side can do to it.
#include "motion/shared_memory.h"

#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "motion/seqlock.h"
#include "motion/shared_layout.h"
#include "stream_random.h"
#include "tap.h"

using namespace premotor;
using motion::Command;
using motion::CommandKind;
using motion::SharedClient;
using motion::SharedStream;

namespace {

// A folder of its own, gone with its files.
class Folder {
 public:
  Folder() {
    std::string name = "/tmp/premotor-shared-XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() {
    for (const char* name : {"/s", "/s.lock", "/s.new"}) ::unlink((path_ + name).c_str());
    ::rmdir(path_.c_str());
  }
  [[nodiscard]] std::string file() const { return path_ + "/s"; }

 private:
  std::string path_;
};

// Both ends of one memory.
struct Pair {
  Folder folder;
  std::unique_ptr<SharedStream> stream;
  std::unique_ptr<SharedClient> client;

  Pair() {
    const motion::SharedInfo info = {3, 1000000, 4000000, 0, 99};
    if (!SharedStream::create(folder.file(), info, &stream).ok() || !stream->announce().ok() || !attach())
      tap::ok(false, "both ends open");
  }
  bool attach() {
    client.reset();
    return SharedClient::attach(folder.file(), &client).ok();
  }
};

std::string attach_error(const std::string& path) {
  std::unique_ptr<SharedClient> client;
  return SharedClient::attach(path, &client).code;
}

std::string create_error(const std::string& path) {
  std::unique_ptr<SharedStream> stream;
  return SharedStream::create(path, {1, 1000000, 0, 0, 0}, &stream).code;
}

// What a hostile other side could do: the bytes themselves.
class RawBytes {
 public:
  explicit RawBytes(const std::string& path) : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)) {
    size_ = static_cast<std::size_t>(::lseek(fd_, 0, SEEK_END));
    bytes_ = static_cast<unsigned char*>(::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
  }
  ~RawBytes() {
    ::munmap(bytes_, size_);
    ::close(fd_);
  }
  motion::SharedLayout& layout() { return *reinterpret_cast<motion::SharedLayout*>(bytes_); }
  void scramble(std::mt19937_64* random, std::size_t from) {
    for (std::size_t i = from; i < size_; ++i) bytes_[i] = static_cast<unsigned char>((*random)() & 0xff);
  }

 private:
  int fd_;
  std::size_t size_;
  unsigned char* bytes_;
};

void test_owners() {
  Folder folder;
  const std::string path = folder.file();
  tap::equal(attach_error(path), std::string("STREAM_PROCESS_MISSING"), "no process, no attachment");
  std::unique_ptr<SharedStream> stream;
  const motion::SharedInfo info = {3, 1000000, 4000000, 0, 99};
  tap::ok(SharedStream::create(path, info, &stream).ok(), "memory is made");
  tap::equal(attach_error(path), std::string("STREAM_PROCESS_MISSING"), "nobody sees it before it is announced");
  tap::equal(create_error(path), std::string("STREAM_PROCESS_BUSY"), "one stream process per path");
  stream->set_warnings({Status::error("STREAM_REALTIME_CORE", "told \x01 so")});
  tap::ok(stream->announce().ok(), "announced");
  std::unique_ptr<SharedClient> client;
  tap::ok(SharedClient::attach(path, &client).ok(), "a supervisor attaches");
  tap::ok(client->info().joints == 3 && client->info().lead_ns == 4000000 && client->info().configuration_hash == 99 &&
              client->info().pid == static_cast<std::uint32_t>(::getpid()),
          "and reads what it attached to");
  tap::ok(client->warnings().size() == 1 && client->warnings()[0].code == "STREAM_REALTIME_CORE" &&
              client->warnings()[0].message == "told \\x01 so",
          "warnings come across, harmless");
  tap::equal(attach_error(path), std::string("STREAM_PROCESS_BUSY"), "one supervisor");
  tap::ok(client->is_alive() && client->generation() == 1 && stream->attachment().generation == 1 &&
              stream->attachment().pid == static_cast<std::uint32_t>(::getpid()),
          "both know each other");
  client.reset();
  tap::equal(stream->attachment().pid, 0u, "it detaches");
  tap::ok(SharedClient::attach(path, &client).ok() && client->generation() == 2, "the next one has the next number");
  stream.reset();
  tap::ok(!client->is_alive(), "the end of the stream process is seen");
  tap::equal(attach_error(path), std::string("STREAM_PROCESS_MISSING"), "its memory went with it");
  tap::ok(SharedStream::create(path, info, &stream).ok() && stream->announce().ok(), "a new process, the same path");
  tap::ok(!client->is_alive(), "is not the one that the old supervisor had");
}

// A supervisor in a process of its own that is killed in the middle of whatever it does.
void test_killed_supervisor() {
  Pair pair;
  pair.client.reset();
  int ready[2];
  if (::pipe(ready) != 0) return static_cast<void>(tap::ok(false, "a pipe"));
  const pid_t child = ::fork();
  if (child == 0) {
    std::unique_ptr<SharedClient> client;
    const bool is_attached = SharedClient::attach(pair.folder.file(), &client).ok();
    char byte = is_attached ? 'y' : 'n';
    static_cast<void>(!::write(ready[1], &byte, 1));
    const auto chunk = std::make_unique<stream::Chunk>();
    for (;;) {
      static_cast<void>(client->push(*chunk));
      static_cast<void>(client->send({CommandKind::arm, motion::StopCategory::one, 5, 0}));
    }
  }
  char byte = 'n';
  static_cast<void>(!::read(ready[0], &byte, 1));
  tap::ok(byte == 'y' && pair.stream->attachment().pid == static_cast<std::uint32_t>(child), "a child is attached");
  tap::equal(attach_error(pair.folder.file()), std::string("STREAM_PROCESS_BUSY"), "nobody else may");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  tap::ok(pair.attach(), "it is killed: a successor may");
  Command command;
  while (pair.stream->take(&command)) tap::ok(false, "arming left over by a dead supervisor is not carried out");
  stream::Chunk chunk;
  stream::Timeline timeline = pair.stream->timeline();
  while (timeline.pop(&chunk)) {
  }
  chunk.header.sequence = 77;
  tap::ok(pair.client->push(chunk) && timeline.pop(&chunk) && chunk.header.sequence == 77, "and its chunks arrive");
  ::close(ready[0]);
  ::close(ready[1]);
}

void test_commands() {
  Pair pair;
  Command got;
  tap::ok(!pair.stream->take(&got), "no commands yet");
  tap::ok(pair.client->send({CommandKind::arm, motion::StopCategory::one, 42, 0}) &&
              pair.client->send({CommandKind::stop, motion::StopCategory::two, 0, 0}) &&
              pair.client->send({CommandKind::beat, motion::StopCategory::one, 0, -7}),
          "three are sent");
  tap::ok(pair.stream->take(&got) && got.kind == CommandKind::arm && got.liveness == 42, "they come in order: arm");
  tap::ok(pair.stream->take(&got) && got.kind == CommandKind::stop && got.category == motion::StopCategory::two,
          "stop");
  tap::ok(pair.stream->take(&got) && got.kind == CommandKind::beat && got.until_ns == -7, "beat");
  motion::Command lamp;
  lamp.kind = CommandKind::indicate;
  lamp.indication = PM_INDICATE_MAINTENANCE;
  tap::ok(pair.client->send(lamp) && pair.stream->take(&got) && got.kind == CommandKind::indicate &&
              got.indication == PM_INDICATE_MAINTENANCE,
          "indicate");
  lamp.indication = PM_INDICATIONS;
  tap::ok(pair.client->send(lamp) && !pair.stream->take(&got), "an indication that does not exist is refused");
  int sent = 0;
  while (pair.client->send({CommandKind::beat, motion::StopCategory::one, 0, sent})) ++sent;
  tap::equal(sent, motion::kCommandsMax, "a full ring refuses");
  bool is_in_order = true;
  for (int i = 0; i < sent; ++i) is_in_order = is_in_order && pair.stream->take(&got) && got.until_ns == i;
  tap::ok(is_in_order && !pair.stream->take(&got), "and holds what it took");
  RawBytes raw(pair.folder.file());
  static_cast<void>(pair.client->send({CommandKind::stop, motion::StopCategory::one, 0, 0}));
  raw.layout().commands[(raw.layout().commands_written.load() - 1) % motion::kCommandsMax].kind = 1234;
  tap::ok(!pair.stream->take(&got), "an unknown kind is refused");
  static_cast<void>(pair.client->send({CommandKind::arm, motion::StopCategory::one, 1, 0}));
  static_cast<void>(pair.client->send({CommandKind::estop, motion::StopCategory::one, 0, 0}));
  tap::ok(pair.attach(), "a successor");
  tap::ok(pair.stream->take(&got) && got.kind == CommandKind::estop,
          "power is not its predecessor's to ask, stops are");
  raw.layout().commands_written.store(raw.layout().commands_read.load() + 1000);
  tap::ok(!pair.stream->take(&got), "an impossible count is an empty ring");
  tap::ok(pair.attach() && pair.client->send({CommandKind::arm, motion::StopCategory::one, 9, 0}) &&
              pair.stream->take(&got) && got.liveness == 9,
          "which the next supervisor mends");
}

stream::Executed executed_of(int i) {
  stream::Executed one;
  one.sequence = static_cast<std::uint64_t>(i);
  one.knot = i;
  one.is_clamped = i % 2 == 1;
  one.time_ns = i * 1000LL;
  one.position.fill(0.5 * i);
  return one;
}

bool is_same(const stream::Executed& got, int i) {
  const stream::Executed want = executed_of(i);
  return got.sequence == want.sequence && got.knot == i && got.is_clamped == want.is_clamped &&
         got.time_ns == want.time_ns && got.position == want.position;
}

void test_executed() {
  Pair pair;
  constexpr int size = stream::Stream::kExecutedMax;
  stream::Executed got;
  tap::ok(!pair.client->executed(&got), "nothing executed yet");
  for (int i = 0; i < 10; ++i) pair.stream->publish_executed(executed_of(i));
  bool is_right = true;
  for (int i = 0; i < 4; ++i) is_right = is_right && pair.client->executed(&got) && is_same(got, i);
  tap::ok(is_right, "knots come in order");
  tap::ok(pair.attach() && pair.client->executed(&got) && is_same(got, 4), "a successor goes on with the next");
  for (int i = 10; i < 10 + size; ++i) pair.stream->publish_executed(executed_of(i));
  is_right = true;
  for (int i = 10; i < 10 + size; ++i) is_right = is_right && pair.client->executed(&got) && is_same(got, i);
  tap::ok(is_right && !pair.client->executed(&got), "an overflow drops the oldest");
  tap::equal(pair.client->executed_lost(), std::uint64_t{5}, "and is counted");
  RawBytes raw(pair.folder.file());
  raw.layout().executed_read.store(UINT64_MAX - 3);
  tap::ok(pair.client->executed(&got), "a nonsense index ends at the oldest there is");
  raw.layout().executed_written.store(UINT64_MAX);
  int found = 0;
  for (int i = 0; i < 2 * size && pair.client->executed(&got); ++i) ++found;
  tap::ok(found <= 1, "knots that nobody wrote are not found");
}

// A reader of the ring while it is overwritten sees whole knots only, in order.
void test_executed_threads() {
  Pair pair;
  constexpr int count = 200000;
  std::thread writer([&] {
    for (int i = 0; i < count; ++i) pair.stream->publish_executed(executed_of(i));
  });
  int last = -1, seen = 0;
  bool is_right = true;
  stream::Executed got;
  while (last < count - 1) {
    if (!pair.client->executed(&got)) continue;
    is_right = is_right && got.knot > last && is_same(got, got.knot);
    last = got.knot;
    ++seen;
  }
  writer.join();
  tap::ok(is_right, "whole knots only, each once");
  tap::ok(seen + static_cast<int>(pair.client->executed_lost()) == count,
          "seen and lost are all: " + std::to_string(seen));
}

motion::MotionSample sample_at(int i) {
  motion::MotionSample one;
  one.time_ns = 1000 * i;
  one.measured_ns = i;
  one.has_setpoint = static_cast<std::uint32_t>(i & 1);
  one.valid = 7;
  one.setpoint_rad.fill(0.25 * i);
  one.position_rad.fill(0.5 * i);
  one.velocity_rad_s.fill(-0.5 * i);
  return one;
}

bool is_same(const motion::MotionSample& got, int i) {
  const motion::MotionSample want = sample_at(i);
  return got.time_ns == want.time_ns && got.measured_ns == want.measured_ns && got.has_setpoint == want.has_setpoint &&
         got.valid == want.valid && got.setpoint_rad == want.setpoint_rad && got.position_rad == want.position_rad &&
         got.velocity_rad_s == want.velocity_rad_s;
}

void test_samples() {
  const auto ring = std::make_unique<motion::SampleRing>();
  motion::SampleWriter writer;
  motion::SampleReader reader, late;
  motion::MotionSample got;
  constexpr int size = motion::kSamplesMax;
  tap::ok(!reader.next(*ring, &got), "no sample yet");
  for (int i = 0; i < 5; ++i) writer.put(ring.get(), sample_at(i));
  bool is_right = true;
  for (int i = 0; i < 5; ++i) is_right = is_right && reader.next(*ring, &got) && is_same(got, i);
  tap::ok(is_right && !reader.next(*ring, &got) && reader.lost() == 0, "samples come in order, each once");
  late.begin(*ring);
  for (int i = 5; i < 5 + size + 3; ++i) writer.put(ring.get(), sample_at(i));
  is_right = true;
  for (int i = 8; i < 8 + size; ++i) is_right = is_right && reader.next(*ring, &got) && is_same(got, i);
  tap::ok(is_right && !reader.next(*ring, &got), "an overflow drops the oldest");
  tap::equal(reader.lost(), std::uint64_t{3}, "and is counted");
  tap::ok(late.next(*ring, &got) && is_same(got, 8) && late.lost() == 3, "who begins later has lost nothing of before");
  ring->written.store(UINT64_MAX);
  int found = 0;
  for (int i = 0; i < 2 * size && reader.next(*ring, &got); ++i) ++found;
  tap::ok(found <= 1, "samples that nobody wrote are not found");
  ring->written.store(2);
  tap::ok(reader.next(*ring, &got) == false || got.time_ns >= 0, "a count that went back harms nobody");
}

// A reader of the ring while it is overwritten sees whole samples only, in order, and all that it does not see is
// counted.
void test_samples_threads() {
  const auto ring = std::make_unique<motion::SampleRing>();
  constexpr int count = 100000;
  std::thread thread([&] {
    motion::SampleWriter writer;
    for (int i = 0; i < count; ++i) writer.put(ring.get(), sample_at(i));
  });
  motion::SampleReader reader;
  motion::MotionSample got;
  int last = -1, seen = 0;
  bool is_right = true;
  while (last < count - 1) {
    if (!reader.next(*ring, &got)) continue;
    const auto i = static_cast<int>(got.measured_ns);
    is_right = is_right && i > last && is_same(got, i);
    last = i;
    ++seen;
  }
  thread.join();
  tap::ok(is_right, "whole samples only, each once");
  tap::ok(seen + static_cast<int>(reader.lost()) == count, "seen and lost are all: " + std::to_string(seen));
}

struct Words {
  std::array<std::uint64_t, 40> word{};
};

void test_seqlock() {
  const auto shared = std::make_unique<motion::Seqlock<Words>>();
  std::atomic<bool> is_over{false};
  Words got;
  std::uint64_t version = 1;
  tap::ok(shared->load(&got, &version) && version == 0, "never stored: version 0");
  std::thread writer([&] {
    Words words;
    for (std::uint64_t i = 1; i <= 300000; ++i) {
      words.word.fill(i);
      shared->store(words);
    }
    is_over.store(true);
  });
  bool is_whole = true, is_forward = true;
  std::uint64_t last = 0;
  int loads = 0;
  while (!is_over.load()) {
    if (!shared->load(&got, &version)) continue;
    for (const std::uint64_t word : got.word) is_whole = is_whole && word == got.word[0];
    is_forward = is_forward && got.word[0] >= last && version == 2 * got.word[0];
    last = got.word[0];
    ++loads;
  }
  writer.join();
  tap::ok(is_whole && is_forward, "no torn value in " + std::to_string(loads) + " loads");
  // A writer that died in the middle leaves an odd version.
  reinterpret_cast<std::atomic<std::uint64_t>*>(shared.get())->fetch_add(1);
  tap::ok(!shared->load(&got, &version), "half a value is none, and nobody waits for the rest");
  shared->store(Words());
  tap::ok(shared->load(&got, &version) && version % 2 == 0, "its successor's value is whole again");
}

void test_histogram() {
  Pair pair;
  stream::Histogram want, got;
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> delays(10, 2);
  for (int i = 0; i < 100000; ++i) {
    const auto value = static_cast<std::int64_t>(delays(random));
    want.record(value);
    pair.stream->record(motion::Measure::cycle, value);
  }
  for (const std::int64_t value : {std::int64_t{-5}, std::int64_t{60000000000}}) {
    want.record(value);
    pair.stream->record(motion::Measure::cycle, value);
  }
  pair.client->histogram(motion::Measure::cycle, &got);
  bool is_same = got.count() == want.count() && got.max_ns() == want.max_ns() && got.min_ns() == want.min_ns() &&
                 got.saturated_count() == want.saturated_count() && got.mean_ns() == want.mean_ns();
  for (const double percent : {0.0, 50.0, 99.0, 99.9, 99.99, 100.0})
    is_same = is_same && got.percentile_ns(percent) == want.percentile_ns(percent);
  tap::ok(is_same, "a shared histogram is the histogram");
  pair.client->histogram(motion::Measure::wake_up, &got);
  tap::ok(got.count() == 0 && got.percentile_ns(99) == 0 && got.min_ns() == 0, "an empty one is empty");
}

void test_versions() {
  Pair pair;
  pair.client.reset();
  RawBytes raw(pair.folder.file());
  motion::SharedLayout& layout = raw.layout();
  const auto refuses = [&](const char* what) {
    tap::equal(attach_error(pair.folder.file()), std::string("STREAM_PROCESS_VERSION"), what);
  };
  layout.version += 1;
  refuses("another version is refused");
  layout.version -= 1;
  layout.magic ^= 1;
  refuses("another kind of file is refused");
  layout.magic ^= 1;
  layout.joints = 0;
  refuses("no joints are refused");
  layout.joints = 1000;
  refuses("too many joints are refused");
  layout.joints = 3;
  tap::ok(pair.attach(), "and this version is not");
  pair.client.reset();
  Folder other;
  const int fd = ::open(other.file().c_str(), O_CREAT | O_RDWR, 0600);
  tap::equal(attach_error(other.file()), std::string("STREAM_PROCESS_VERSION"), "an empty file is refused");
  tap::ok(::write(fd, "short", 5) == 5 && attach_error(other.file()) == "STREAM_PROCESS_VERSION", "so is a short one");
  ::close(fd);
  ::unlink(other.file().c_str());
  tap::ok(::symlink("/dev/zero", other.file().c_str()) == 0 && attach_error(other.file()) == "STREAM_PROCESS_MEMORY",
          "a link is not followed");
}

// Random bytes everywhere behind the header: every call ends, and whatever it says can be shown.
void test_hostile() {
  Pair pair;
  RawBytes raw(pair.folder.file());
  std::mt19937_64 random(11);
  const auto report = std::make_unique<motion::StreamReport>();
  const auto histogram = std::make_unique<stream::Histogram>();
  const auto chunk = std::make_unique<stream::Chunk>();
  stream::Timeline timeline = pair.stream->timeline();
  std::size_t shown = 0;
  for (int round = 0; round < 30; ++round) {
    raw.scramble(&random, offsetof(motion::SharedLayout, warning_count));
    // An even version lets the nonsense through.
    if (round % 2 == 0) *reinterpret_cast<std::uint64_t*>(&raw.layout().status) &= ~std::uint64_t{1};
    Command command;
    stream::Executed executed;
    for (int i = 0; i < motion::kCommandsMax && pair.stream->take(&command); ++i) shown += command.liveness & 1;
    for (int i = 0; i < 4 && pair.client->executed(&executed); ++i) shown += executed.sequence & 1;
    while (timeline.pop(chunk.get())) ++shown;
    motion::MotionSample sample;
    for (int i = 0; i < 4 && pair.client->sample(&sample); ++i) shown += sample.has_setpoint & 1;
    static_cast<void>(pair.client->send(command));
    if (pair.client->status(report.get()))
      shown +=
          std::string(report->motion.fault_code).size() + motion::describe(report->motion.link_fault).message.size();
    for (int m = 0; m < motion::kHistograms; ++m) {
      pair.client->histogram(static_cast<motion::Measure>(m), histogram.get());
      shown += static_cast<std::size_t>(histogram->percentile_ns(99) & 1);
    }
    for (const motion::Notice& notice : pair.client->warnings()) shown += notice.message.size();
    pair.stream->record(motion::Measure::cycle, 1000);
    pair.stream->publish_executed(executed_of(round));
  }
  tap::ok(shown > 0, "random memory harms nobody");
}

}  // namespace

int main() {
  test_owners();
  test_killed_supervisor();
  test_commands();
  test_executed();
  test_executed_threads();
  test_samples();
  test_samples_threads();
  test_seqlock();
  test_histogram();
  test_versions();
  test_hostile();
  return tap::finish();
}
