#include "engine/stream_state.h"

#include <algorithm>
#include <cstring>

namespace premotor::engine {
namespace {

constexpr std::uint64_t kMagic = 0x31434e452d4d50ff;  // version 1

// FNV-1a over words of 8 bytes, the rest byte by byte.
std::uint64_t hash_of(std::span<const std::uint8_t> bytes) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  std::size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, 8);
    hash = (hash ^ word) * 0x100000001b3u;
    hash ^= hash >> 32;  // the product carries upwards only
  }
  for (; at < bytes.size(); ++at) hash = (hash ^ bytes[at]) * 0x100000001b3u;
  return hash;
}

void append(std::vector<std::uint8_t>* bytes, std::uint64_t value) {
  bytes->resize(bytes->size() + 8);
  std::memcpy(bytes->data() + bytes->size() - 8, &value, 8);
}

// All that is known before the floats: data for another checkpoint or job differs here.
std::vector<std::uint8_t> header(std::span<const VaeStreamState> streams, const std::string& tag) {
  std::vector<std::uint8_t> bytes;
  append(&bytes, kMagic);
  append(&bytes, hash_of({reinterpret_cast<const std::uint8_t*>(tag.data()), tag.size()}));
  append(&bytes, streams.size());
  for (const VaeStreamState& stream : streams) {
    append(&bytes, static_cast<std::uint64_t>(stream.height));
    append(&bytes, static_cast<std::uint64_t>(stream.width));
    append(&bytes, stream.history.size());
    for (const std::vector<float>& history : stream.history) append(&bytes, history.size());
  }
  return bytes;
}

Status refused(const std::string& expected, const std::string& found) {
  Status status =
      Status::error("RESTORE_STATE", "The encoder state cannot be used: expected " + expected + ", found " + found +
                                         ". Pass what encoderState() gave for this checkpoint, job and precision.");
  status.expected = expected;
  status.found = found;
  return status;
}

}  // namespace

std::vector<std::uint8_t> pack_streams(std::span<const VaeStreamState> streams, const std::string& tag) {
  std::vector<std::uint8_t> bytes = header(streams, tag);
  for (const VaeStreamState& stream : streams)
    for (const std::vector<float>& history : stream.history) {
      const auto* from = reinterpret_cast<const std::uint8_t*>(history.data());
      bytes.insert(bytes.end(), from, from + history.size() * sizeof(float));
    }
  append(&bytes, hash_of(bytes));
  return bytes;
}

Status unpack_streams(std::span<const std::uint8_t> data, const std::string& tag,
                      std::span<const VaeStreamState> layout, std::vector<VaeStreamState>* streams) {
  const std::vector<std::uint8_t> wanted = header(layout, tag);
  std::size_t size = wanted.size() + 8;
  for (const VaeStreamState& stream : layout)
    for (const std::vector<float>& history : stream.history) size += history.size() * sizeof(float);
  if (data.size() < 16 || !std::equal(wanted.begin(), wanted.begin() + 8, data.begin()))
    return refused("the state of a video encoder", "other data");
  if (!std::equal(wanted.begin(), wanted.begin() + 16, data.begin()))
    return refused("the state of this checkpoint's encoder at this precision", "that of another");
  if (data.size() != size || !std::equal(wanted.begin(), wanted.end(), data.begin()))
    return refused(std::to_string(size) + " bytes for this job's cameras",
                   std::to_string(data.size()) + " bytes of another length or for other pictures");
  std::uint64_t hash = 0;
  std::memcpy(&hash, data.data() + size - 8, 8);
  if (hash != hash_of(data.first(size - 8))) return refused("undamaged data", "data whose hash is wrong");
  streams->assign(layout.begin(), layout.end());
  const std::uint8_t* from = data.data() + wanted.size();
  for (VaeStreamState& stream : *streams)
    for (std::vector<float>& history : stream.history) {
      std::memcpy(history.data(), from, history.size() * sizeof(float));
      from += history.size() * sizeof(float);
    }
  return Status::good();
}

}  // namespace premotor::engine
