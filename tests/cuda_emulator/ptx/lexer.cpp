#include "tests/cuda_emulator/ptx/lexer.h"

#include <cctype>
#include <stdexcept>
#include <string>

namespace tramontane::emulator::ptx {
namespace {

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' || c == '.';
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    std::vector<Token> tokens;
    while (skip_blank()) tokens.push_back(next());
    tokens.push_back({Token::Kind::kEnd, source_.substr(source_.size()), line_});
    return tokens;
  }

 private:
  char at(std::size_t position) const { return position < source_.size() ? source_[position] : '\0'; }

  bool skip_blank() {
    while (position_ < source_.size()) {
      const char c = source_[position_];
      if (std::isspace(static_cast<unsigned char>(c))) {
        line_ += c == '\n';
        ++position_;
      } else if (c == '/' && at(position_ + 1) == '/') {
        position_ = std::min(source_.find('\n', position_), source_.size());
      } else if (c == '/' && at(position_ + 1) == '*') {
        skip_comment();
      } else {
        return true;
      }
    }
    return false;
  }

  void skip_comment() {
    const std::size_t end = source_.find("*/", position_ + 2);
    if (end == source_.npos)
      throw std::runtime_error("PTX line " + std::to_string(line_) + ": comment without end");
    for (; position_ < end + 2; ++position_) line_ += source_[position_] == '\n';
  }

  Token next() {
    const std::size_t begin = position_;
    const char c = source_[position_];
    if (c == '"') return string();
    if (!is_word(c)) {
      ++position_;
      return {Token::Kind::kPunctuation, source_.substr(begin, 1), line_};
    }
    const bool number = std::isdigit(static_cast<unsigned char>(c));
    const bool directive = c == '.';  // ".reg.b16" is two
    bool opcode = false;
    while (is_word(at(position_)) || (opcode && at(position_) == ':' && at(position_ + 1) == ':')) {
      if (directive && position_ > begin && at(position_) == '.') break;
      if (at(position_) == ':') ++position_;
      opcode = opcode || (at(position_) == '.' && !number);
      ++position_;
    }
    return {number ? Token::Kind::kNumber : Token::Kind::kWord, source_.substr(begin, position_ - begin),
            line_};
  }

  Token string() {
    const std::size_t begin = position_ + 1;
    const std::size_t end = source_.find('"', begin);
    if (end == source_.npos)
      throw std::runtime_error("PTX line " + std::to_string(line_) + ": string without end");
    position_ = end + 1;
    return {Token::Kind::kString, source_.substr(begin, end - begin), line_};
  }

  std::string_view source_;
  std::size_t position_ = 0;
  u32 line_ = 1;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace tramontane::emulator::ptx
