// CHECK: a broken invariant prints both values and stops the program. Not for bad input (RequestError, std::runtime_error).
#pragma once

#include <sstream>
#include <string>

namespace tramontane {

[[noreturn]] void check_failed(const char* file, int line, const char* expression, const std::string& values);

template <typename A, typename B>
std::string describe_pair(const A& a, const B& b) {
  std::ostringstream text;
  text << a << " vs " << b;
  return text.str();
}

}  // namespace tramontane

#define CHECK(condition, message) \
  ((condition) ? void(0) : ::tramontane::check_failed(__FILE__, __LINE__, #condition, (message)))
#define CHECK_OP(a, op, b)                                                               \
  (((a)op(b)) ? void(0)                                                                  \
              : ::tramontane::check_failed(__FILE__, __LINE__, #a " " #op " " #b, \
                                           ::tramontane::describe_pair((a), (b))))
#define CHECK_EQ(a, b) CHECK_OP(a, ==, b)
#define CHECK_LE(a, b) CHECK_OP(a, <=, b)
#define CHECK_LT(a, b) CHECK_OP(a, <, b)
#define CHECK_GE(a, b) CHECK_OP(a, >=, b)
