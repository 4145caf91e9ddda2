#include "ops/cpu/processor.h"

#include <cstring>
#include <fstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace premotor::ops {

#if defined(__x86_64__)
std::string processor_name() {
  constexpr unsigned kFirst = 0x80000002, kLast = 0x80000004;
  if (__get_cpuid_max(kFirst & 0x80000000, nullptr) < kLast) return "unknown";
  std::string name;
  for (unsigned leaf = kFirst; leaf <= kLast; ++leaf) {
    unsigned words[4] = {};
    __get_cpuid(leaf, &words[0], &words[1], &words[2], &words[3]);
    char text[sizeof words];
    std::memcpy(text, words, sizeof words);
    // Printable ASCII and single spaces alone: the name goes into files.
    for (const char c : text)
      if (c > ' ' ? c < 0x7f : c == ' ' && !name.empty() && name.back() != ' ') name += c;
  }
  while (!name.empty() && name.back() == ' ') name.pop_back();
  return name.empty() ? "unknown" : name;
}
#else
std::string processor_name() {
  std::ifstream file("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1");
  std::string value;
  if (!(file >> value) || value.find_first_not_of("0123456789abcdefx") != std::string::npos) return "unknown";
  return "arm " + value;
}
#endif

}  // namespace premotor::ops
