#include "evaluation/logit_store.h"

#include <sys/types.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

#include "engine/backend/check.h"

namespace tramontane {
namespace {

[[noreturn]] void fail(const char* what) {
  throw std::runtime_error(std::string("temporary file for logits: cannot ") + what + ": " +
                           std::strerror(errno));
}

}  // namespace

LogitStore::LogitStore(size_t vocab_size) : file_(std::tmpfile()), row_(vocab_size) {
  if (!file_) fail("be made");
}

void LogitStore::append(std::span<const float> row) {
  CHECK_EQ(row.size(), row_.size());
  if (fseeko(file_.get(), 0, SEEK_END) != 0) fail("seek");
  if (std::fwrite(row.data(), sizeof(float), row.size(), file_.get()) != row.size()) fail("write");
  if (std::fflush(file_.get()) != 0) fail("write");
  ++rows_;
}

std::span<const float> LogitStore::read(size_t index) {
  CHECK_LT(index, rows_);
  const auto offset = static_cast<off_t>(index * row_.size() * sizeof(float));
  if (fseeko(file_.get(), offset, SEEK_SET) != 0) fail("seek");
  if (std::fread(row_.data(), sizeof(float), row_.size(), file_.get()) != row_.size()) fail("read");
  return row_;
}

}  // namespace tramontane
