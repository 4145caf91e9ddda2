// How every error about a checkpoint is worded: file, tensor, expected, found, what to do.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace premotor::engine {

// `tensor` may be empty. Names come from outside, so they are shown printable and short.
Status checkpoint_error(const char* code, const std::string& file, std::string_view tensor, const std::string& expected,
                        const std::string& found, const std::string& advice);

// "[2, 3]".
std::string shown_shape(const std::vector<std::int64_t>& shape);

}  // namespace premotor::engine
