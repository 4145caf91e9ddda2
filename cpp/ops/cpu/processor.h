// Which processor this is, as its maker calls it: for what was measured on one and means nothing on another.
#pragma once

#include <string>

namespace premotor::ops {

// "AMD EPYC 7543 32-Core Processor"; on 64-bit ARM the identification register, "arm 0x00000000410fd0b0"; "unknown"
// where neither can be read.
std::string processor_name();

}  // namespace premotor::ops
