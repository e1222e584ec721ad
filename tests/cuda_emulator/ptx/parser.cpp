#include "tests/cuda_emulator/ptx/parser.h"

#include <bit>
#include <charconv>
#include <cstdlib>
#include <stdexcept>

#include "tests/cuda_emulator/ptx/lexer.h"

namespace tramontane::emulator::ptx {
namespace {

using OperandKind = Operand::Kind;
using StatementKind = Statement::Kind;

Space space_of(std::string_view word) {
  if (word == ".global") return Space::kGlobal;
  if (word == ".const") return Space::kConst;
  if (word == ".shared") return Space::kShared;
  if (word == ".local") return Space::kLocal;
  if (word == ".param") return Space::kParam;
  return Space::kNone;
}

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}

  Module run() {
    while (peek().kind != Token::Kind::kEnd) module_item();
    return std::move(module_);
  }

 private:
  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(next_ + ahead, tokens_.size() - 1)];
  }
  const Token& take() { return tokens_[next_ + 1 < tokens_.size() ? next_++ : next_]; }
  bool accept(std::string_view text) {
    if (!peek().is(text)) return false;
    ++next_;
    return true;
  }
  [[noreturn]] void fail(const std::string& message) const {
    throw std::runtime_error("PTX line " + std::to_string(peek().line) + ": " + message + ", got '" +
                             std::string(peek().text) + "'");
  }
  void expect(std::string_view text) {
    if (!accept(text)) fail("expected '" + std::string(text) + "'");
  }
  std::string word() {
    if (peek().kind != Token::Kind::kWord) fail("expected a name");
    return std::string(take().text);
  }

  void module_item() {
    const Token& token = peek();
    if (accept(".version")) return skip_line(token.line);
    if (accept(".address_size")) return skip_line(token.line);
    if (accept(".target")) return target();
    if (accept(".file")) return file(token.line);
    if (accept(".section")) return section();
    if (accept(".alias") || accept(".pragma")) return skip_past(";");
    bool is_extern = false;
    while (peek().is(".visible") || peek().is(".weak") || peek().is(".extern") || peek().is(".common"))
      is_extern |= take().is(".extern");
    if (accept(".entry")) return function(true);
    if (accept(".func")) return function(false);
    Variable variable = declaration();
    variable.is_extern = is_extern;
    initial_values(variable);
    expect(";");
    module_.variables.push_back(std::make_shared<Variable>(std::move(variable)));
  }

  void skip_line(u32 line) {
    while (peek().line == line && peek().kind != Token::Kind::kEnd) ++next_;
  }
  void skip_past(std::string_view end) {
    while (!accept(end)) {
      if (peek().kind == Token::Kind::kEnd) fail("expected '" + std::string(end) + "'");
      ++next_;
    }
  }
  void target() {
    const u32 line = peek().line;
    const std::string name = word();
    if (name.starts_with("sm_")) module_.target = static_cast<u32>(std::atoi(name.c_str() + 3));
    skip_line(line);
  }
  void file(u32 line) {
    const u32 number = static_cast<u32>(integer());
    module_.files[number] = std::string(take().text);
    skip_line(line);
  }
  void section() {
    while (!peek().is("{")) take();
    int depth = 0;
    do {
      if (peek().kind == Token::Kind::kEnd) fail("section without end");
      depth += peek().is("{") ? 1 : peek().is("}") ? -1 : 0;
      ++next_;
    } while (depth);
  }

  // A number as integer bits; floats keep their own kinds.
  Operand number() {
    Operand operand;
    operand.kind = OperandKind::kInteger;
    const bool negative = accept("-");
    std::string text(take().text);
    if (text.starts_with("0f") || text.starts_with("0F") || text.starts_with("0d") ||
        text.starts_with("0D")) {
      operand.kind = std::tolower(text[1]) == 'f' ? OperandKind::kFloat32 : OperandKind::kFloat64;
      operand.bits = parse_integer(text.substr(2), 16);
    } else if (text.find('.') != text.npos) {
      operand.kind = OperandKind::kFloat64;
      operand.bits = std::bit_cast<u64>(std::strtod(text.c_str(), nullptr));
    } else {
      if (text.back() == 'U') text.pop_back();
      const bool hex = text.starts_with("0x") || text.starts_with("0X");
      const bool octal = !hex && text.size() > 1 && text[0] == '0';
      operand.bits = parse_integer(hex ? text.substr(2) : text, hex ? 16 : octal ? 8 : 10);
    }
    if (negative) operand.bits = operand.kind == OperandKind::kInteger ? -operand.bits : flip_sign(operand);
    return operand;
  }
  static u64 flip_sign(const Operand& operand) {
    return operand.bits ^ (operand.kind == OperandKind::kFloat32 ? 1ull << 31 : 1ull << 63);
  }
  u64 parse_integer(const std::string& digits, int base) const {
    u64 value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (error != std::errc{} || end != digits.data() + digits.size())
      fail("'" + digits + "' is no number; before this");
    return value;
  }
  u64 integer() {
    if (peek().kind != Token::Kind::kNumber && !peek().is("-")) fail("expected a number");
    return number().bits;
  }

  // ".shared .align 4 .b8 name[128]", up to and without "=" or ";".
  Variable declaration() {
    Variable variable;
    for (;;) {
      const std::string text = word();
      if (text == ".align")
        variable.align = static_cast<u32>(integer());
      else if (space_of(text) != Space::kNone)
        variable.space = space_of(text);
      else if (text[0] == '.' && type_size(std::string_view(text).substr(1)) > 0)
        variable.element_size = static_cast<u32>(type_size(std::string_view(text).substr(1)));
      else if (text == ".ptr" || text == ".noalias")
        continue;
      else if (text[0] == '.')
        fail("unknown directive '" + text + "' in a declaration");
      else {
        variable.name = text;
        break;
      }
    }
    variable.align = std::max(variable.align, variable.element_size);
    u64 count = 1;
    while (accept("[")) {
      count *= peek().is("]") ? 0 : integer();
      expect("]");
    }
    variable.bytes = count * variable.element_size;
    return variable;
  }
  void initial_values(Variable& variable) {
    if (!accept("=")) return;
    if (!accept("{")) return variable.values.push_back(initial_value(variable));
    while (!accept("}")) {
      variable.values.push_back(initial_value(variable));
      accept(",");
    }
  }
  Initializer initial_value(const Variable& variable) {
    Initializer value;
    if (peek().kind == Token::Kind::kNumber || peek().is("-")) {
      const Operand operand = number();
      value.bits = operand.bits;
      if (operand.kind == OperandKind::kFloat64 && variable.element_size == 4)
        value.bits = std::bit_cast<u32>(static_cast<f32>(std::bit_cast<f64>(operand.bits)));
      return value;
    }
    value.symbol = word();
    if (value.symbol == "generic") {
      expect("(");
      value.symbol = word();
      expect(")");
    }
    if (accept("+")) value.bits = integer();
    return value;
  }

  std::vector<Variable> parameter_list() {
    std::vector<Variable> list;
    expect("(");
    while (!accept(")")) {
      list.push_back(declaration());
      accept(",");
    }
    return list;
  }

  void function(bool is_entry) {
    Function function;
    function.is_entry = is_entry;
    if (peek().is("(")) function.returns = parameter_list();
    function.name = word();
    if (peek().is("(")) function.parameters = parameter_list();
    while (!peek().is("{") && !peek().is(";")) function_directive(function);
    if (!accept(";")) {
      function.has_body = true;
      source_ = {};
      body(function);
    }
    Function& known = module_.functions[function.name];
    if (function.has_body || !known.has_body) known = std::move(function);
  }
  void function_directive(Function& function) {
    const std::string name = word();
    if (name != ".maxntid" && name != ".reqntid") {
      while (peek().kind == Token::Kind::kNumber || accept(",")) {
        if (peek().kind == Token::Kind::kNumber) ++next_;
      }
      return;
    }
    u64 threads = integer();
    while (accept(",")) threads *= integer();
    function.max_threads = static_cast<u32>(threads);
  }

  void body(Function& function) {
    expect("{");
    for (int depth = 1; depth;) {
      if (accept("{")) {
        ++depth;
        function.body.push_back({StatementKind::kOpen, {}, {}, {}, {}, {}});
      } else if (accept("}")) {
        if (--depth) function.body.push_back({StatementKind::kClose, {}, {}, {}, {}, {}});
      } else {
        statement(function);
      }
    }
  }

  void statement(Function& function) {
    const Token& token = peek();
    if (token.kind == Token::Kind::kEnd) fail("function without end");
    if (peek(1).is(":")) return label(function);
    if (accept(".loc")) return location(token.line);
    if (accept(".pragma")) return skip_past(";");
    if (accept(".reg")) return registers(function);
    if (token.text[0] == '.') {
      Variable variable = declaration();
      initial_values(variable);
      expect(";");
      function.body.push_back(
          {StatementKind::kVariable, {}, std::make_shared<Variable>(std::move(variable)), {}, {}, {}});
      return;
    }
    instruction(function);
  }

  void label(Function& function) {
    const std::string name = word();
    expect(":");
    if (!accept(".branchtargets")) {
      function.body.push_back({StatementKind::kLabel, {}, {}, {}, name, {}});
      return;
    }
    Statement statement{StatementKind::kTargets, {}, {}, {}, name, {}};
    do statement.targets.push_back(word());
    while (accept(","));
    expect(";");
    function.body.push_back(std::move(statement));
  }

  void location(u32 line) {
    source_.file = static_cast<u32>(integer());
    source_.line = static_cast<u32>(integer());
    skip_line(line);
  }

  void registers(Function& function) {
    const std::string type = word();
    const int size = type_size(std::string_view(type).substr(1));
    if (size < 0) fail("unknown register type '" + type + "'");
    do {
      Registers registers{word(), -1, static_cast<u32>(size)};
      if (accept("<")) {
        registers.count = static_cast<int>(integer());
        expect(">");
      }
      function.body.push_back({StatementKind::kRegisters, {}, {}, registers, {}, {}});
    } while (accept(","));
    expect(";");
  }

  void instruction(Function& function) {
    auto result = std::make_shared<Instruction>();
    const std::size_t first = next_;
    result->line = peek().line;
    result->source = source_;
    if (accept("@")) {
      result->negated = accept("!");
      result->predicate = word();
    }
    result->opcode = word();
    while (!peek().is(";")) {
      result->operands.push_back(operand());
      accept(",");
    }
    for (std::size_t k = first; k < next_; ++k) append(result->text, tokens_[k]);
    expect(";");
    function.body.push_back({StatementKind::kInstruction, std::move(result), {}, {}, {}, {}});
  }
  static void append(std::string& text, const Token& token) {
    const bool tight = text.empty() || token.text == "," || token.text == "]" || token.text == "}" ||
                       token.text == "+" || text.back() == '[' || text.back() == '{' || text.back() == '@' ||
                       text.back() == '!' || text.back() == '+';
    if (!tight) text += ' ';
    text += token.text;
  }

  Operand operand() {
    Operand result = simple_operand();
    if (!accept("|")) return result;
    Operand pair;
    pair.kind = OperandKind::kPair;
    pair.parts = {std::move(result), simple_operand()};
    return pair;
  }

  Operand simple_operand() {
    Operand result;
    if (peek().kind == Token::Kind::kNumber || peek().is("-")) return number();
    if (accept("[")) return address();
    if (accept("{")) return group(OperandKind::kVector, "}");
    if (accept("(")) return group(OperandKind::kList, ")");
    if (accept("!")) {
      result.kind = OperandKind::kNot;
      result.parts = {simple_operand()};
      return result;
    }
    if (accept("_")) return result;
    result.kind = OperandKind::kName;
    result.name = word();
    if (accept("+")) result.bits = integer();
    return result;
  }

  Operand address() {
    Operand result;
    result.kind = OperandKind::kAddress;
    if (peek().kind == Token::Kind::kWord)
      result.name = word();
    else
      result.bits = integer();
    while (accept("+")) result.bits += integer();
    expect("]");
    return result;
  }

  Operand group(OperandKind kind, std::string_view end) {
    Operand result;
    result.kind = kind;
    while (!accept(end)) {
      result.parts.push_back(operand());
      accept(",");
    }
    return result;
  }

  std::vector<Token> tokens_;
  std::size_t next_ = 0;
  Module module_;
  SourceLine source_;
};

}  // namespace

int type_size(std::string_view type) {
  if (type == "pred") return 0;
  if (type == "bf16") return 2;
  if (type == "f16x2" || type == "bf16x2") return 4;
  if (type == "b128") return 16;
  if (type.size() < 2 || std::string_view("busf").find(type[0]) == std::string_view::npos) return -1;
  const std::string_view bits = type.substr(1);
  return bits == "8" ? 1 : bits == "16" ? 2 : bits == "32" ? 4 : bits == "64" ? 8 : -1;
}

Module parse(std::string_view source) {
  return Parser(source).run();
}

}  // namespace tramontane::emulator::ptx
