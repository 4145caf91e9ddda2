// What the checkpoint tests share: a folder that vanishes, whole-file reading and writing, a safetensors writer that
// can also write wrong files, and the place of the golden checkpoints.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace checkpoint_files {

// A new folder below the system's temporary one, deleted with all it holds at the end of the scope.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "premotor-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(text.data(), static_cast<std::streamsize>(text.size()));
}

inline std::span<const std::byte> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// A safetensors file with this header text and data; the length field tells the truth.
inline std::string with_header(const std::string& header, const std::string& data = "") {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>((header.size() >> (8 * i)) & 0xff));
  return file + header + data;
}

// Header and data of an existing safetensors file.
inline std::pair<std::string, std::string> split(const std::string& file) {
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= std::uint64_t{static_cast<unsigned char>(file[i])} << (8 * i);
  return {file.substr(8, length), file.substr(8 + length)};
}

// `text` with the first `from` replaced; aborts when it is absent, so that a mutation test cannot pass by doing
// nothing.
inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  if (at == std::string::npos) std::abort();
  return text.replace(at, from.size(), to);
}

// Writes tensors one after the other.
class Writer {
 public:
  template <typename T>
  Writer& add(const std::string& name, const std::string& dtype, const std::vector<std::int64_t>& shape,
              const std::vector<T>& values) {
    std::string sizes;
    for (const std::int64_t size : shape) sizes += (sizes.empty() ? "" : ",") + std::to_string(size);
    const std::size_t begin = data_.size();
    data_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    header_ += (header_.empty() ? "" : ",") + std::string("\"") + name + R"(":{"dtype":")" + dtype + R"(","shape":[)" +
               sizes + R"(],"data_offsets":[)" + std::to_string(begin) + "," + std::to_string(data_.size()) + "]}";
    return *this;
  }
  // `pad` spaces after the header shift the data against its alignment.
  [[nodiscard]] std::string file(std::size_t pad = 0) const {
    return with_header("{" + header_ + "}" + std::string(pad, ' '), data_);
  }

 private:
  std::string header_;
  std::string data_;
};

inline std::string goldens() {
  const char* folder = std::getenv("PREMOTOR_GOLDENS");
  return folder != nullptr && *folder != '\0' ? folder : "test/goldens";
}

inline const std::vector<std::string>& golden_checkpoints() {
  static const std::vector<std::string> names = {"franka_tiny", "robotwin_tiny", "nocfg_partial", "bf16", "i2va_tiny"};
  return names;
}

inline std::string golden_checkpoint(const std::string& name) { return goldens() + "/" + name + "/checkpoint"; }

}  // namespace checkpoint_files
