// The wording of checkpoint errors. See checkpoint_error.h.
#include "engine/checkpoint_error.h"

#include "base/json.h"

namespace premotor::engine {

Status checkpoint_error(const char* code, const std::string& file, std::string_view tensor, const std::string& expected,
                        const std::string& found, const std::string& advice) {
  std::string where = file;
  if (!tensor.empty()) where += ", tensor " + printable(tensor);
  Status status = Status::error(code, where + ": expected " + expected + ", found " + found + ". " + advice);
  status.file = file;
  status.tensor = printable(tensor);
  status.expected = expected;
  status.found = found;
  return status;
}

std::string shown_shape(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace premotor::engine
