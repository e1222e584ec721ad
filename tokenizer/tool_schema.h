// Whether a tool's parameters are a valid draft-7 JSON schema: the rules of draft 7's own meta-schema,
// keyword by keyword. Not checked: that "pattern" and the keys of "patternProperties" are regular expressions
// and that "$id", "$schema" and "$ref" are URIs or resolve. Unknown keywords are allowed, as in the draft.
#pragma once

#include <optional>
#include <string>

#include "tokenizer/python_json.h"

namespace tramontane {

struct SchemaFault {
  std::string path;  // "properties.city.type"; empty: the schema itself
  std::string message;
};

std::optional<SchemaFault> find_schema_fault(const PythonJson& schema);

}  // namespace tramontane
