// Status: how every layer below the addon reports an operating error. Bugs are assertions, operating errors are a
// Status with a stable code; nothing below the addon throws across a boundary, and nothing calls exit.
#pragma once

#include <string>
#include <utility>

namespace premotor {

// A stable error. `code` is one of the strings of docs/ERRORS.md (static storage) and empty when all is well. `message`
// says what was expected, what was found and what to do. The optional fields name the culprit, so that the supervisor
// can show them apart.
struct Status {
  const char* code = "";
  std::string message;
  std::string file;
  std::string tensor;
  std::string expected;
  std::string found;

  [[nodiscard]] bool ok() const { return code[0] == '\0'; }

  static Status good() { return {}; }
  static Status error(const char* code, std::string message) {
    Status s;
    s.code = code;
    s.message = std::move(message);
    return s;
  }
};

}  // namespace premotor

// Passes an error on to the caller, unchanged.
#define PREMOTOR_TRY(expression)                               \
  do {                                                         \
    ::premotor::Status premotor_try_status = (expression);     \
    if (!premotor_try_status.ok()) return premotor_try_status; \
  } while (false)
