// libFuzzer target: the safetensors reader. docs/CHECKPOINT.md says how to run it.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "targets.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

// Most mutations shift the header's end, and a wrong length field would hide everything behind it; so half of them get
// a length that ends the header at the last '}'.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (size < 10 || seed % 2 == 0) return size;
  std::size_t end = size;
  while (end > 8 && data[end - 1] != '}') --end;
  for (std::size_t i = 0; i < 8; ++i) data[i] = static_cast<std::uint8_t>((std::uint64_t{end - 8} >> (8 * i)) & 0xff);
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string violated = fuzz::check_safetensors({reinterpret_cast<const std::byte*>(data), size});
  if (!violated.empty()) {
    std::fprintf(stderr, "property violated: %s\n", violated.c_str());
    std::abort();
  }
  return 0;
}
