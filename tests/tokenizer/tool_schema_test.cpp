// Verdicts are those of jsonschema's Draft7Validator.check_schema.
#include "tokenizer/tool_schema.h"

#include <gtest/gtest.h>

namespace tramontane {
namespace {

TEST(ToolSchema, Sound) {
  for (const char* text :
       {"{}", "true",
        R"({"type":"object","properties":{"a":{"type":"string","enum":["x",1,null]}},"required":["a"]})",
        R"({"type":["null","boolean"]})", R"({"minLength":1.0,"maxItems":0,"multipleOf":0.1})",
        R"({"enum":[]})", R"({"items":[{"type":"string"},true],"additionalItems":false})",
        R"({"dependencies":{"a":["b"],"c":{"type":"null"}}})",
        R"({"$defs":{"anything":"goes"},"unknown":[1,2]})", R"({"anyOf":[{"const":null},{"not":{}}]})",
        R"({"properties":{"type":{"type":"string"}}})", R"({"maximum":1e21,"minimum":-1.5})",
        R"({"default":{"type":7}})"}) {
    const auto fault = find_schema_fault(parse_python_json(text));
    EXPECT_FALSE(fault) << text << ": " << fault->path << ": " << fault->message;
  }
}

TEST(ToolSchema, Faulty) {
  const std::pair<const char*, const char*> cases[] = {
      {"[]", ""},
      {"null", ""},
      {R"({"type":"nonsense"})", "type"},
      {R"({"type":[]})", "type"},
      {R"({"type":["string","string"]})", "type"},
      {R"({"type":["string",1]})", "type"},
      {R"({"properties":[]})", "properties"},
      {R"({"properties":{"a":{"type":"strin"}}})", "properties.a.type"},
      {R"({"properties":{"a":"string"}})", "properties.a"},
      {R"({"required":"a"})", "required"},
      {R"({"required":["a","a"]})", "required"},
      {R"({"required":[1]})", "required"},
      {R"({"required":true})", "required"},
      {R"({"enum":"a"})", "enum"},
      {R"({"minLength":-1})", "minLength"},
      {R"({"minLength":1.5})", "minLength"},
      {R"({"maximum":"3"})", "maximum"},
      {R"({"maximum":true})", "maximum"},
      {R"({"multipleOf":0})", "multipleOf"},
      {R"({"pattern":1})", "pattern"},
      {R"({"description":["x"]})", "description"},
      {R"({"uniqueItems":1})", "uniqueItems"},
      {R"({"items":[]})", "items"},
      {R"({"items":3})", "items"},
      {R"({"anyOf":[]})", "anyOf"},
      {R"({"allOf":[{},{"not":1}]})", "allOf[1].not"},
      {R"({"dependencies":{"a":[1]}})", "dependencies.a"},
  };
  for (const auto& [text, path] : cases) {
    const auto fault = find_schema_fault(parse_python_json(text));
    ASSERT_TRUE(fault) << text;
    EXPECT_EQ(fault->path, path) << text;
    EXPECT_NE(fault->message, "");
  }
}

}  // namespace
}  // namespace tramontane
