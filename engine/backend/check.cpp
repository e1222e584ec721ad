#include "engine/backend/check.h"

#include <cstdio>
#include <cstdlib>

namespace tramontane {

void check_failed(const char* file, int line, const char* expression, const std::string& values) {
  std::fprintf(stderr, "%s:%d: invariant broken: %s (%s)\n", file, line, expression, values.c_str());
  std::abort();
}

}  // namespace tramontane
