#include "motion/shared_memory.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "motion/shared_layout.h"

namespace premotor::motion {

namespace {

// The bytes of the file that stand for a living owner (fcntl(2), open file description locks): no data is locked.
enum LockByte : int { kStreamByte = 0, kSupervisorByte = 1 };

std::size_t timeline_at() { return (sizeof(SharedLayout) + kLine - 1) / kLine * kLine; }
std::size_t total_bytes() { return timeline_at() + stream::Timeline::bytes(); }

static_assert(std::is_trivially_copyable_v<SharedStatus> && std::is_standard_layout_v<SharedLayout>);
static_assert(stream::Timeline::kAlignment == kLine);
// docs/STREAM.md has these in its table.
static_assert(offsetof(SharedLayout, warnings) == 52 && offsetof(SharedLayout, attachment) == 2112);
static_assert(offsetof(SharedLayout, commands) == 2304 && offsetof(SharedLayout, executed) == 4480);
static_assert(offsetof(SharedLayout, status) == 168320 && sizeof(Seqlock<SharedStatus>) == 1000);
static_assert(offsetof(SharedLayout, histograms) == 169344 && sizeof(SharedHistogram) == 106528);
static_assert(offsetof(SharedLayout, samples) == 488960 && sizeof(Seqlock<MotionSample>) == 384);
static_assert(sizeof(SharedLayout) == 1275456);

Status failure(const char* what, const std::string& path) {
  Status status = Status::error("STREAM_PROCESS_MEMORY", "shared memory " + path + ": cannot " + what + ": " +
                                                             std::strerror(errno) +
                                                             ". Choose a path in a folder of this user that keeps its "
                                                             "files in memory, such as /dev/shm.");
  status.file = path;
  return status;
}

bool is_regular_and_ours(int fd, struct stat* about) {
  return ::fstat(fd, about) == 0 && S_ISREG(about->st_mode) && about->st_uid == ::geteuid();
}

struct flock lock_of(LockByte byte) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

bool take_lock(int fd, LockByte byte) {
  struct flock lock = lock_of(byte);
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool is_locked_by_other(int fd, LockByte byte) {
  struct flock lock = lock_of(byte);
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

Attachment to_attachment(std::uint64_t word) {
  return {static_cast<std::uint32_t>(word & 0xffffffff), static_cast<std::uint32_t>(word >> 32)};
}

template <std::size_t N>
void put_text(std::array<char, N>* out, const char* text) {
  out->fill(0);
  std::strncpy(out->data(), text, N - 1);
}

// Codes are capitals; whatever else is found ends the text.
void put_code(SharedCode* out, const SharedCode& found) {
  out->fill(0);
  for (std::size_t i = 0; i + 1 < found.size(); ++i) {
    const char c = found[i];
    if (!((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_')) return;
    (*out)[i] = c;
  }
}

template <std::size_t N>
std::string text_of(const std::array<char, N>& found) {
  return printable(std::string_view(found.data(), ::strnlen(found.data(), N)));
}

}  // namespace

std::uint64_t configuration_hash(const std::string& text) {
  std::uint64_t hash = 14695981039346656037u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return hash;
}

std::string default_shared_path() {
  const char* folder = std::getenv("XDG_RUNTIME_DIR");
  if (folder != nullptr && folder[0] == '/') return std::string(folder) + "/premotor-stream";
  return "/dev/shm/premotor-stream-" + std::to_string(::geteuid());
}

Mapping::~Mapping() {
  if (address_ != nullptr) ::munmap(address_, bytes_);
  if (fd_ >= 0) ::close(fd_);
}

bool Mapping::map(int fd, std::size_t bytes) {
  fd_ = fd;
  void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (address == MAP_FAILED) return false;
  address_ = address;
  bytes_ = bytes;
  return true;
}

void* Mapping::timeline() const { return static_cast<char*>(address_) + timeline_at(); }

Status SharedStream::create(const std::string& path, const SharedInfo& info, std::unique_ptr<SharedStream>* out) {
  std::unique_ptr<SharedStream> made(new SharedStream);
  made->path_ = path;
  struct stat about;
  made->lock_fd_ = ::open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (made->lock_fd_ < 0 || !is_regular_and_ours(made->lock_fd_, &about)) return failure("open its lock", path);
  if (!take_lock(made->lock_fd_, kStreamByte)) {
    Status status = Status::error("STREAM_PROCESS_BUSY",
                                  "another stream process owns " + path + ". Attach to it, or stop it first.");
    status.file = path;
    return status;
  }
  // Under another name until it is complete. What a process that ended had left under that name is nobody's.
  made->hidden_path_ = path + ".new";
  ::unlink(made->hidden_path_.c_str());
  const int fd = ::open(made->hidden_path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return failure("create it", path);
  if (::ftruncate(fd, static_cast<off_t>(total_bytes())) != 0 || !take_lock(fd, kStreamByte)) {
    const Status status = failure("size and lock it", path);
    ::close(fd);
    return status;
  }
  if (!made->mapping_.map(fd, total_bytes())) return failure("map it", path);
  auto* layout = new (made->mapping_.layout()) SharedLayout();
  layout->version = kSharedVersion;
  layout->layout_bytes = static_cast<std::uint32_t>(total_bytes());
  layout->joints = static_cast<std::uint32_t>(info.joints);
  layout->pid = static_cast<std::uint32_t>(::getpid());
  layout->period_ns = info.period_ns;
  layout->lead_ns = info.lead_ns;
  layout->configuration_hash = info.configuration_hash;
  layout->magic = kSharedMagic;
  for (SharedHistogram& h : layout->histograms) h.min_ns.store(INT64_MAX, std::memory_order_relaxed);
  PREMOTOR_TRY(stream::Timeline::create(made->mapping_.timeline(), stream::Timeline::bytes(), &made->timeline_));
  *out = std::move(made);
  return Status::good();
}

SharedStream::~SharedStream() {
  if (is_announced_) ::unlink(path_.c_str());
  if (!is_announced_ && !hidden_path_.empty()) ::unlink(hidden_path_.c_str());
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

void SharedStream::set_warnings(const std::vector<Status>& warnings) {
  SharedLayout* layout = mapping_.layout();
  const std::size_t count = std::min<std::size_t>(warnings.size(), kWarningsMax);
  for (std::size_t i = 0; i < count; ++i) {
    put_text(&layout->warnings[i].code, warnings[i].code);
    put_text(&layout->warnings[i].text, warnings[i].message.c_str());
  }
  layout->warning_count = static_cast<std::uint32_t>(count);
}

Status SharedStream::announce() {
  std::atomic_thread_fence(std::memory_order_release);
  if (std::rename(hidden_path_.c_str(), path_.c_str()) != 0) return failure("name it", path_);
  is_announced_ = true;
  return Status::good();
}

Attachment SharedStream::attachment() const {
  return to_attachment(mapping_.layout()->attachment.load(std::memory_order_acquire));
}

// Stopping is anybody's right; power and a vouch for a plan are the attached supervisor's only.
bool SharedStream::take(Command* out) {
  SharedLayout* layout = mapping_.layout();
  for (int i = 0; i < kCommandsMax; ++i) {
    const std::uint64_t waiting = layout->commands_written.load(std::memory_order_acquire) - commands_read_;
    if (waiting == 0 || waiting > kCommandsMax) return false;
    const SharedCommand got = layout->commands[commands_read_ % kCommandsMax];
    layout->commands_read.store(++commands_read_, std::memory_order_release);
    ++commands_.commands_taken;
    const auto kind = static_cast<CommandKind>(got.kind);
    const bool is_stop = kind == CommandKind::stop || kind == CommandKind::estop;
    const bool is_indicate = kind == CommandKind::indicate && got.category < PM_INDICATIONS;
    const bool is_known = is_stop || is_indicate || kind == CommandKind::arm || kind == CommandKind::beat;
    if (!is_known || (!is_stop && got.generation != attachment().generation)) {
      ++commands_.commands_refused;
      continue;
    }
    out->kind = kind;
    out->category = got.category == 2 ? StopCategory::two : StopCategory::one;
    out->liveness = got.liveness;
    out->until_ns = got.until_ns;
    out->indication = is_indicate ? got.category : 0;
    return true;
  }
  return false;
}

void SharedStream::record(Measure measure, std::int64_t value_ns) {
  SharedHistogram& h = mapping_.layout()->histograms[static_cast<std::size_t>(measure)];
  constexpr auto relaxed = std::memory_order_relaxed;
  const std::int64_t value = std::max<std::int64_t>(value_ns, 0);
  const std::int64_t kept = std::min(value, stream::Histogram::kValueMax);
  auto& bucket = h.counts[static_cast<std::size_t>(stream::Histogram::bucket_of(kept))];
  bucket.store(bucket.load(relaxed) + 1, relaxed);
  if (value > kept) h.saturated_count.store(h.saturated_count.load(relaxed) + 1, relaxed);
  if (value < h.min_ns.load(relaxed)) h.min_ns.store(value, relaxed);
  if (value > h.max_ns.load(relaxed)) h.max_ns.store(value, relaxed);
  h.sum_ns.store(h.sum_ns.load(relaxed) + static_cast<double>(value), relaxed);
}

void SharedStream::publish_executed(const stream::Executed& one) {
  SharedLayout* layout = mapping_.layout();
  const SharedExecuted shared = {one.sequence, one.time_ns, one.knot, one.is_clamped ? 1u : 0u, one.position};
  layout->executed[executed_written_ % layout->executed.size()].store(shared);
  layout->executed_written.store(++executed_written_, std::memory_order_release);
}

void SharedStream::publish(const Motion& motion, const LoopCounts& loop) {
  const MotionStatus& from = motion.status();
  SharedStatus to{};
  to.time_ns = from.time_ns;
  to.setpoint_time_ns = from.setpoints.time_ns;
  to.sequence = from.sequence;
  to.newest_sequence = from.newest_sequence;
  to.beat = from.setpoints.beat;
  to.stream = static_cast<std::uint8_t>(from.stream);
  to.link = static_cast<std::uint8_t>(from.link);
  to.bridge = from.bridge;
  to.newest_refusal = static_cast<std::uint8_t>(from.newest_refusal);
  to.is_at_rest = from.is_at_rest ? 1 : 0;
  to.is_setpoint_valid = from.setpoints.is_valid ? 1 : 0;
  to.link_fault = from.link_fault.fault;
  to.link_result = from.link_fault.result;
  to.link_axis = from.link_fault.axis;
  to.link_detail = from.link_fault.detail;
  put_text(&to.fault_code, from.fault_code);
  put_text(&to.link_code, from.link_fault.code);
  to.position = from.setpoints.position;
  to.velocity = from.setpoints.velocity;
  to.clamped = from.setpoints.clamped;
  to.measured = from.measured;
  to.counts = motion.stream().counts();
  to.link_counts = motion.link().counts();
  to.loop = loop;
  to.loop.commands_taken = commands_.commands_taken;
  to.loop.commands_refused = commands_.commands_refused;
  mapping_.layout()->status.store(to);
  samples_.put(&mapping_.layout()->samples, sample_of(from));
}

Status SharedClient::attach(const std::string& path, std::unique_ptr<SharedClient>* out) {
  const auto error = [&](const char* code, const std::string& message) {
    Status status = Status::error(code, message);
    status.file = path;
    return status;
  };
  std::unique_ptr<SharedClient> made(new SharedClient);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0 && errno == ENOENT)
    return error("STREAM_PROCESS_MISSING", "no stream process runs at " + path + ". Start one first.");
  struct stat about = {};
  if (fd < 0) return failure("open it", path);
  if (!is_regular_and_ours(fd, &about)) {
    ::close(fd);
    return error("STREAM_PROCESS_MEMORY", path + " is no shared memory of this user. Choose another path.");
  }
  const bool is_whole = about.st_size == static_cast<off_t>(total_bytes());
  if (!made->mapping_.map(fd, is_whole ? total_bytes() : 1)) return failure("map it", path);
  SharedLayout* layout = made->mapping_.layout();
  if (!is_whole || layout->magic != kSharedMagic || layout->version != kSharedVersion ||
      layout->layout_bytes != total_bytes() || layout->joints < 1 || layout->joints > stream::kJointsMax)
    return error("STREAM_PROCESS_VERSION", "the shared memory " + path +
                                               " was made by another version of the stream process. Stop that "
                                               "process and start the one of this release.");
  if (!is_locked_by_other(fd, kStreamByte))
    return error("STREAM_PROCESS_MISSING", "the stream process that made " + path + " has ended. Start one.");
  if (!take_lock(fd, kSupervisorByte))
    return error("STREAM_PROCESS_BUSY", "another supervisor is attached to " + path + ": process " +
                                            std::to_string(to_attachment(layout->attachment.load()).pid) +
                                            ". Stop it first; a robot has one.");
  PREMOTOR_TRY(stream::Timeline::attach(made->mapping_.timeline(), stream::Timeline::bytes(), &made->timeline_));
  made->info_ = {static_cast<int>(layout->joints), layout->period_ns, layout->lead_ns, layout->pid,
                 layout->configuration_hash};
  made->samples_.begin(layout->samples);
  made->generation_ = to_attachment(layout->attachment.load()).generation + 1;
  const std::uint64_t record = static_cast<std::uint64_t>(made->generation_) << 32;
  // A predecessor that wrote nonsense must not lock out its successor.
  const std::uint64_t read = layout->commands_read.load(std::memory_order_acquire);
  if (layout->commands_written.load() - read > kCommandsMax) layout->commands_written.store(read);
  layout->attachment.store(record | static_cast<std::uint32_t>(::getpid()), std::memory_order_release);
  *out = std::move(made);
  return Status::good();
}

SharedClient::~SharedClient() {
  if (generation_ == 0 || mapping_.layout() == nullptr) return;
  const std::uint64_t record = static_cast<std::uint64_t>(generation_) << 32;
  mapping_.layout()->attachment.store(record, std::memory_order_release);
}

bool SharedClient::is_alive() const { return is_locked_by_other(mapping_.fd(), kStreamByte); }

std::vector<Notice> SharedClient::warnings() const {
  const SharedLayout* layout = mapping_.layout();
  std::vector<Notice> all;
  const std::uint32_t count = std::min<std::uint32_t>(layout->warning_count, kWarningsMax);
  for (std::uint32_t i = 0; i < count; ++i) {
    const SharedWarning& warning = layout->warnings[i];
    all.push_back({text_of(warning.code), text_of(warning.text)});
  }
  return all;
}

bool SharedClient::send(const Command& command) {
  SharedLayout* layout = mapping_.layout();
  const std::uint64_t written = layout->commands_written.load(std::memory_order_relaxed);
  if (written - layout->commands_read.load(std::memory_order_acquire) >= kCommandsMax) return false;
  layout->commands[written % kCommandsMax] = {
      generation_, static_cast<std::uint32_t>(command.kind),
      command.kind == CommandKind::indicate ? command.indication : static_cast<std::uint32_t>(command.category),
      command.liveness, command.until_ns};
  layout->commands_written.store(written + 1, std::memory_order_release);
  return true;
}

// The place up to which knots were taken is in the memory, so that a successor goes on where its predecessor was.
bool SharedClient::executed(stream::Executed* out) {
  SharedLayout* layout = mapping_.layout();
  const std::uint64_t size = layout->executed.size();
  const std::uint64_t written = layout->executed_written.load(std::memory_order_acquire);
  std::uint64_t read = layout->executed_read.load(std::memory_order_relaxed);
  const std::uint64_t oldest = written > size ? written - size : 0;
  if (read < oldest || read > written) {
    executed_lost_ += read < oldest ? oldest - read : 0;
    read = oldest;
  }
  bool is_found = false;
  while (read < written && !is_found) {
    SharedExecuted got;
    std::uint64_t version = 0;
    is_found = layout->executed[read % size].load(&got, &version) && version == 2 * (read / size + 1);
    ++read;
    if (!is_found) {
      ++executed_lost_;
      continue;
    }
    *out = {got.sequence, got.knot, got.is_clamped != 0, got.time_ns, got.position};
  }
  layout->executed_read.store(read, std::memory_order_relaxed);
  return is_found;
}

bool SharedClient::sample(MotionSample* out) { return samples_.next(mapping_.layout()->samples, out); }

bool SharedClient::status(StreamReport* out) const {
  SharedStatus got;
  std::uint64_t version = 0;
  if (!mapping_.layout()->status.load(&got, &version) || version == 0) return false;
  put_code(&out->fault_code, got.fault_code);
  put_code(&out->link_code, got.link_code);
  MotionStatus& to = out->motion;
  to.time_ns = got.time_ns;
  to.stream = static_cast<stream::State>(got.stream);
  to.link = static_cast<LinkState>(got.link);
  to.bridge = got.bridge;
  to.fault_code = out->fault_code.data();
  to.link_fault = {out->link_code.data(), got.link_fault, got.link_result, got.link_axis, got.link_detail};
  to.is_at_rest = got.is_at_rest != 0;
  to.sequence = got.sequence;
  to.newest_sequence = got.newest_sequence;
  to.newest_refusal = static_cast<stream::Refusal>(got.newest_refusal);
  to.setpoints.is_valid = got.is_setpoint_valid != 0;
  to.setpoints.state = to.stream;
  to.setpoints.time_ns = got.setpoint_time_ns;
  to.setpoints.sequence = got.sequence;
  to.setpoints.beat = got.beat;
  to.setpoints.position = got.position;
  to.setpoints.velocity = got.velocity;
  to.setpoints.clamped = got.clamped;
  to.measured = got.measured;
  out->counts = got.counts;
  out->counts.executed_lost += executed_lost_;
  out->link = got.link_counts;
  out->loop = got.loop;
  return true;
}

void SharedClient::histogram(Measure measure, stream::Histogram* out) const {
  const SharedHistogram& h = mapping_.layout()->histograms[static_cast<std::size_t>(measure)];
  constexpr auto relaxed = std::memory_order_relaxed;
  const auto counts = std::make_unique<std::array<std::uint64_t, stream::Histogram::kBuckets>>();
  for (std::size_t i = 0; i < counts->size(); ++i) (*counts)[i] = h.counts[i].load(relaxed);
  out->load(counts->data(), h.saturated_count.load(relaxed), h.min_ns.load(relaxed), h.max_ns.load(relaxed),
            h.sum_ns.load(relaxed));
}

}  // namespace premotor::motion
