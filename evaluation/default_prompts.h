// The text of evaluation/prompts.txt, put into the program when it is built.
#pragma once

#include <string_view>

namespace tramontane {

extern const std::string_view kDefaultPrompts;

}  // namespace tramontane
