// SentencePieceTokenizer: what the library loads from us encodes as the model file itself does, our decoder
// equals the library's, properties of both, and broken model files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <set>
#include <thread>

#include "tests/support/golden.h"
#include "tests/tokenizer/byte_tokenizer.h"
#include "tokenizer/utf8.h"

namespace tramontane {
namespace {

using testing::HasSubstr;

std::string random_text(std::mt19937& random, const std::vector<std::string>& words, int longest) {
  std::string text;
  for (int n = static_cast<int>(random() % static_cast<unsigned>(longest)) + 1; n > 0; --n)
    text += words[random() % words.size()];
  return text;
}

void expect_same_encoding(const sentencepiece::SentencePieceProcessor& reference, const Tokenizer& tokenizer,
                          const std::string& text) {
  std::vector<int> expected;
  ASSERT_TRUE(reference.Encode(text, &expected).ok());
  ASSERT_EQ(tokenizer.encode(text), expected) << text;
}

const std::vector<std::string> kWords = {" ",
                                         "  ",
                                         "     ",
                                         "\n",
                                         "\t",
                                         "\r\n",
                                         "the",
                                         "hello",
                                         "World",
                                         " and",
                                         "1",
                                         "2024",
                                         "3.14",
                                         "[INST]",
                                         "</s>",
                                         "<0x0A>",
                                         "[REFERENCE_DOC_3]",
                                         "é",
                                         "ü",
                                         "日本",
                                         "語",
                                         "Привет",
                                         "😀",
                                         "👨‍👩‍👧",
                                         "\u2581",
                                         "\u0301",
                                         "\u200B",
                                         "\uFFFD",
                                         "한국어",
                                         "नमस्ते",
                                         "ﬁ",
                                         "\U0001F9D9",
                                         "__",
                                         "!!!!",
                                         "{\"a\":",
                                         "def f(x):",
                                         "ing",
                                         "a",
                                         "b",
                                         "z",
                                         "Ä"};

class RealVocabulary : public testing::TestWithParam<const char*> {};

TEST_P(RealVocabulary, EncodesAndDecodesAsTheLibraryDoesWithTheFile) {
  GOLDEN_OR_SKIP(model, std::string("tokenizers/") + GetParam());
  sentencepiece::SentencePieceProcessor reference;
  ASSERT_TRUE(reference.Load(model.string()).ok());
  const auto tokenizer = load_sentencepiece_tokenizer(model);
  ASSERT_EQ(tokenizer->vocab_size(), reference.GetPieceSize());
  EXPECT_EQ(tokenizer->bos_id(), reference.bos_id());
  EXPECT_EQ(tokenizer->eos_id(), reference.eos_id());
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = random_text(random, kWords, 30);
    expect_same_encoding(reference, *tokenizer, text);
    std::vector<int> ids;
    for (int n = 0; n < 12; ++n) {
      // Half of them from the front, where control and byte pieces are.
      ids.push_back(
          static_cast<int>(random() % static_cast<unsigned>(n % 2 ? 1100 : tokenizer->vocab_size())));
    }
    std::string expected;
    ASSERT_TRUE(reference.Decode(ids, &expected).ok());
    ASSERT_EQ(tokenizer->decode(ids), expected) << testing::PrintToString(ids);
  }
}

INSTANTIATE_TEST_SUITE_P(All, RealVocabulary,
                         testing::Values("tokenizer.model.v1", "mistral_instruct_tokenizer_240216.model.v2",
                                         "mistral_instruct_tokenizer_240323.model.v3"),
                         [](const auto& named) { return "v" + std::to_string(named.index + 1); });

// Every text of valid UTF-8 comes back, but for U+2581, which is how a space is spelt.
TEST(SentencePiece, RoundTripsEveryCharacter) {
  GOLDEN_OR_SKIP(model, "tokenizers/tokenizer.model.v1");
  const auto tokenizer = load_sentencepiece_tokenizer(model);
  for (uint32_t c = 0; c <= 0x10FFFF; c += c < 0x3000 ? 1 : 97) {
    if ((c >= 0xD800 && c <= 0xDFFF) || c == 0x2581) continue;
    std::string text = "x";
    append_utf8(c, text);
    ASSERT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << "U+" << std::hex << c;
  }
}

// Were merging quadratic, this would take minutes.
TEST(SentencePiece, EncodesLongTexts) {
  GOLDEN_OR_SKIP(model, "tokenizers/tokenizer.model.v1");
  const auto tokenizer = load_sentencepiece_tokenizer(model);
  for (const std::string& unit :
       {std::string("a"), std::string(" "), std::string("the quick brown fox. "), std::string("\n")}) {
    std::string text;
    while (text.size() < 500000) text += unit;
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
}

// Random vocabularies over few letters: ties of score, pieces whose parts are no pieces, user-defined and
// unused pieces.
TEST(SentencePiece, EncodesRandomVocabulariesAsTheLibraryDoesWithTheFile) {
  std::mt19937 random(2);
  const std::vector<std::string> letters = {"a", "b", "c", "\u2581", "é"};
  for (int round = 0; round < 300; ++round) {
    ModelBytes model = ModelBytes::minimal();
    std::set<std::string> seen;
    for (int n = 0; n < 40; ++n) {
      const std::string text = random_text(random, letters, n < 20 ? 3 : 6);
      if (!seen.insert(text).second) continue;
      const auto kind = random() % 10;
      const PieceType type = kind == 0   ? PieceType::user_defined
                             : kind == 1 ? PieceType::unused
                                         : PieceType::normal;
      model.pieces.push_back({text, -static_cast<float>(random() % 6), type});
    }
    const std::string bytes = model.serialize();
    sentencepiece::SentencePieceProcessor reference;
    ASSERT_TRUE(reference.LoadFromSerializedProto(bytes).ok());
    const auto tokenizer = make_sentencepiece_tokenizer(parse_sentencepiece_model(bytes, "random"), "random");
    for (int n = 0; n < 20; ++n)
      expect_same_encoding(reference, *tokenizer, random_text(random, {"a", "b", "c", " ", "é", "d"}, 20));
  }
}

TEST(SentencePiece, NeverGivesControlTokensForText) {
  GOLDEN_OR_SKIP(model, "tokenizers/mistral_instruct_tokenizer_240323.model.v3");
  const auto tokenizer = load_sentencepiece_tokenizer(model);
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    if (!tokenizer->is_control(id)) continue;
    EXPECT_EQ(tokenizer->control_id(tokenizer->piece(id)), id);
    EXPECT_EQ(tokenizer->token_bytes(id), "");
    for (const std::string& text :
         {tokenizer->piece(id), "a" + tokenizer->piece(id) + tokenizer->piece(id)}) {
      const std::vector<int32_t> ids = tokenizer->encode(text);
      for (const int32_t got : ids) ASSERT_FALSE(tokenizer->is_control(got)) << id;
      EXPECT_EQ(tokenizer->decode(ids), text);
    }
  }
  EXPECT_EQ(tokenizer->control_id("[INST]"), 3);
  EXPECT_EQ(tokenizer->control_id("the"), std::nullopt);
}

TEST(SentencePiece, ADecoderIsAsNewAfterItsEnd) {
  const auto tokenizer = byte_tokenizer({"\u2581a"});
  const auto decoder = tokenizer->make_decoder();
  std::string text;
  for (int round = 0; round < 2; ++round) {
    decoder->append(259, text);
    decoder->append(byte_id('\xE2'), text);
    decoder->finish(text);
  }
  EXPECT_EQ(text, "a\uFFFDa\uFFFD") << "the first piece of each loses its space";
}

TEST(SentencePiece, SaysWhatEachIdStandsFor) {
  GOLDEN_OR_SKIP(model, "tokenizers/tokenizer.model.v1");
  const auto tokenizer = load_sentencepiece_tokenizer(model);
  EXPECT_EQ(tokenizer->piece(13), "<0x0A>");
  EXPECT_EQ(tokenizer->token_bytes(13), "\n");
  EXPECT_EQ(tokenizer->token_bytes(0), " \u2047 ");
  EXPECT_EQ(tokenizer->token_bytes(272), " the");
  EXPECT_EQ(tokenizer->piece(272), "\u2581the");
  EXPECT_THROW(tokenizer->piece(32000), std::out_of_range);
  EXPECT_THROW(tokenizer->make_decoder()->append(-1, *std::make_unique<std::string>()), std::out_of_range);
}

TEST(SentencePiece, RepairsInvalidUtf8) {
  GOLDEN_OR_SKIP(model, "tokenizers/mistral_instruct_tokenizer_240323.model.v3");
  const auto tokenizer = load_sentencepiece_tokenizer(model);
  EXPECT_EQ(tokenizer->encode("a\xFFz\xE2\x82"), tokenizer->encode("a\uFFFDz\uFFFD\uFFFD"));
  std::mt19937 random(5);
  const std::vector<std::string> parts = {"\xE2",   "\x82", "\xF0\x9F", "\xED\xA0\x80",
                                          "\xC0",   "\xF5", "\x80",     "a",
                                          "\u2581", "é",    " ",        "[REFERENCE_DOC_3]"};
  for (int i = 0; i < 2000; ++i) {
    const std::string text = random_text(random, parts, 12);
    ASSERT_EQ(tokenizer->encode(text), tokenizer->encode(repair_utf8(text))) << testing::PrintToString(text);
  }
}

// One tokenizer serves all requests; run under the thread sanitizer.
TEST(SentencePiece, EncodesInSeveralThreadsAtOnce) {
  ModelBytes model = ModelBytes::minimal();
  model.pieces.push_back({"ab", -1, PieceType::normal});
  model.pieces.push_back({"\u2581ab", -2, PieceType::unused});
  model.pieces.push_back({"[X]", 0, PieceType::user_defined});
  const auto tokenizer =
      make_sentencepiece_tokenizer(parse_sentencepiece_model(model.serialize(), "threads"), "threads");
  const auto encode_all = [&](std::vector<std::vector<int32_t>>& out) {
    std::mt19937 random(6);
    for (int i = 0; i < 200; ++i)
      out.push_back(tokenizer->encode(random_text(random, {"ab", " ", "[X]", "é"}, 30)));
  };
  std::vector<std::vector<int32_t>> expected;
  encode_all(expected);
  std::vector<std::vector<std::vector<int32_t>>> got(4);
  std::vector<std::thread> threads;
  for (auto& out : got) threads.emplace_back([&] { encode_all(out); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& out : got) EXPECT_EQ(out, expected);
}

// The library has a log of its own on stderr.
TEST(SentencePiece, PrintsNothing) {
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  const auto tokenizer = byte_tokenizer({"ab"});
  tokenizer->decode(tokenizer->encode("ab \xFF c"));
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

// What the library reads is what was checked, and nothing else of the file.
TEST(SentencePiece, WritesTheModelThatItRead) {
  ModelBytes model = ModelBytes::minimal();
  model.pieces.push_back({"ab", -1.5f, PieceType::normal});
  model.pieces.push_back({"[X]", 0, PieceType::user_defined});
  const auto vocabulary = parse_sentencepiece_model(model.serialize(), "sound");
  const std::string written = serialize_sentencepiece_model(vocabulary);
  EXPECT_EQ(written, model.serialize());
  // A self-test that the library would run and fail (self_test_data: samples: input, expected).
  const std::string extra = bytes_field(4, bytes_field(1, bytes_field(1, "ab") + bytes_field(2, "wrong")));
  sentencepiece::SentencePieceProcessor library;
  EXPECT_FALSE(library.LoadFromSerializedProto(model.serialize() + extra).ok());
  const auto tokenizer =
      make_sentencepiece_tokenizer(parse_sentencepiece_model(model.serialize() + extra, "extra"), "extra");
  EXPECT_EQ(tokenizer->encode("[X]").back(), tokenizer->vocab_size() - 1);
}

std::string fault_of(const std::string& bytes) {
  try {
    make_sentencepiece_tokenizer(parse_sentencepiece_model(bytes, "m.model"), "m.model");
    return "";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

void expect_fault(const std::string& bytes, const std::string& words) {
  const std::string fault = fault_of(bytes);
  EXPECT_THAT(fault, HasSubstr(words));
  EXPECT_THAT(fault, testing::StartsWith("m.model: "));
  EXPECT_THAT(fault, testing::Not(HasSubstr("\n")));
}

TEST(SentencePieceFile, ASoundOneHasNoFault) {
  EXPECT_EQ(fault_of(ModelBytes::minimal().serialize()), "");
}

TEST(SentencePieceFile, FaultyPieces) {
  const auto with = [](SentencePieceVocabulary::Piece piece) {
    ModelBytes model = ModelBytes::minimal();
    model.pieces.push_back(std::move(piece));
    return model.serialize();
  };
  EXPECT_EQ(fault_of(with({"ab", 0, PieceType::normal})), "");
  expect_fault(with({"", 0, PieceType::normal}), "piece 259 is empty");
  expect_fault(with({"\xFF", 0, PieceType::normal}), "not valid UTF-8");
  expect_fault(with({"</s>", 0, PieceType::control}), "already defined");
  expect_fault(with({"<0x0a>", 0, PieceType::byte}), "a byte piece must read");
  expect_fault(with({"<0x0A>", 0, PieceType::byte}), "already defined");
  expect_fault(with({"<unk2>", 0, PieceType::unknown}), "second unknown");
  expect_fault(with({"x", std::numeric_limits<float>::quiet_NaN(), PieceType::normal}),
               "not a finite number");
  expect_fault(with({"x", 0, static_cast<PieceType>(9)}), "unknown type 9");
  ModelBytes twice = ModelBytes::minimal();
  twice.pieces.push_back({"ab", 0, PieceType::normal});
  twice.pieces.push_back({"ab", 0, PieceType::user_defined});
  expect_fault(twice.serialize(), "\"ab\" is already defined");
  ModelBytes spelt = ModelBytes::minimal();
  spelt.pieces.push_back({"</s>", 0, PieceType::normal});
  expect_fault(spelt.serialize(), "\"</s>\" is already defined");
  ModelBytes no_byte = ModelBytes::minimal();
  no_byte.pieces.erase(no_byte.pieces.begin() + 3 + 65);
  expect_fault(no_byte.serialize(), "the one for byte 65 is missing");
  ModelBytes no_unknown = ModelBytes::minimal();
  no_unknown.pieces.erase(no_unknown.pieces.begin());
  expect_fault(no_unknown.serialize(), "no unknown piece");
}

// Each of these would make the library crash, read past an array, or give a control token for text.
TEST(SentencePieceFile, PiecesThatTheLibraryCannotTake) {
  const auto with = [](std::vector<SentencePieceVocabulary::Piece> pieces) {
    ModelBytes model = ModelBytes::minimal();
    model.pieces.insert(model.pieces.end(), pieces.begin(), pieces.end());
    return model.serialize();
  };
  const auto nested = [](size_t count) {
    std::vector<SentencePieceVocabulary::Piece> pieces;
    for (size_t n = 1; n <= count; ++n) pieces.push_back({std::string(n, 'a'), 0, PieceType::user_defined});
    return pieces;
  };
  EXPECT_EQ(fault_of(with(nested(64))), "");
  expect_fault(with(nested(65)), "more than 64 user-defined pieces");
  EXPECT_EQ(fault_of(with({{std::string(1024, 'a'), 0, PieceType::unused}})), "");
  expect_fault(with({{std::string(1025, 'a'), 0, PieceType::unused}}), "piece 259: 1025 bytes");
  expect_fault(with({{std::string("a\0b", 3), 0, PieceType::user_defined}}), "zero byte");
  expect_fault(with({{"\u2581", 0, PieceType::control}}), "a control piece that is a character");
  ModelBytes unknown = ModelBytes::minimal();
  unknown.pieces[0].text = "?";
  expect_fault(unknown.serialize(), "unknown piece is a character");
}

// As many as are let through: all of them match at once, and the longest unused piece is taken apart.
TEST(SentencePieceFile, TheLargestPiecesThatTheLibraryCanTake) {
  ModelBytes model = ModelBytes::minimal();
  model.pieces.push_back({"\u2581", 0, PieceType::normal});
  for (size_t n = 1; n <= 64; ++n) model.pieces.push_back({std::string(n, 'a'), 0, PieceType::user_defined});
  for (size_t n = 1; n <= 1024; ++n) model.pieces.push_back({std::string(n, 'b'), 0, PieceType::unused});
  const auto tokenizer =
      make_sentencepiece_tokenizer(parse_sentencepiece_model(model.serialize(), "large"), "large");
  const std::string text = std::string(200, 'a') + std::string(1024, 'b');
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  EXPECT_EQ(tokenizer->piece(tokenizer->encode("x" + text)[2]), std::string(64, 'a'));
}

TEST(SentencePieceFile, UnsupportedKinds) {
  const auto with_trainer = [](const std::string& trainer) {
    ModelBytes model = ModelBytes::minimal();
    model.trainer = trainer;
    return model.serialize();
  };
  const auto with_normalizer = [](const std::string& normalizer) {
    ModelBytes model = ModelBytes::minimal();
    model.normalizer = normalizer;
    return model.serialize();
  };
  expect_fault(with_trainer(varint_field(3, 1) + varint_field(35, 1)),
               "expected a BPE model, got model type unigram");
  expect_fault(with_trainer(""), "got model type unigram");
  expect_fault(with_trainer(varint_field(3, 99) + varint_field(35, 1)), "got model type 99");
  expect_fault(with_trainer(varint_field(3, 2)), "byte fallback");
  expect_fault(with_trainer(varint_field(3, 2) + varint_field(35, 1) + varint_field(24, 1)),
               "treat_whitespace_as_suffix");
  expect_fault(with_normalizer(""), "remove_extra_whitespaces");
  expect_fault(with_normalizer(bytes_field(1, "nmt_nfkc") + bytes_field(2, "map") + varint_field(4, 0)),
               "got \"nmt_nfkc\"");
  expect_fault(with_normalizer(varint_field(4, 0) + varint_field(5, 0)), "escape_whitespaces");
}

TEST(SentencePieceFile, Garbage) {
  expect_fault("", "no pieces");
  expect_fault("hello, I am no model", "not a SentencePiece model");
  expect_fault(std::string(64, '\xFF'), "varint");
  expect_fault(bytes_field(1, "abc").substr(0, 4), "truncated");
  expect_fault(varint_field(1, 5), "wrong wire type");
  expect_fault(varint(1 << 3 | 2) + varint(UINT64_MAX), "truncated");
}

// Cut at any byte and with any bit turned, a file is read or refused; never a crash.
TEST(SentencePieceFile, CutAndCorruptedFilesAreReadOrRefused) {
  const std::string sound = ModelBytes::minimal().serialize();
  size_t refused = 0;
  for (size_t length = 0; length < sound.size(); length += 3)
    refused += !fault_of(sound.substr(0, length)).empty();
  EXPECT_EQ(refused, (sound.size() + 2) / 3);
  std::mt19937 random(3);
  for (int i = 0; i < 1000; ++i) {
    std::string broken = sound;
    for (int n = 0; n < 3; ++n) broken[random() % broken.size()] ^= static_cast<char>(1u << (random() % 8));
    fault_of(broken);
  }
}

TEST(SentencePieceFile, OneThatIsTooLargeIsNotRead) {
  const auto path = std::filesystem::temp_directory_path() / ("large-" + std::to_string(getpid()) + ".model");
  std::ofstream(path) << "x";
  std::filesystem::resize_file(path, (256u << 20) + 1);  // a hole: it takes no room
  try {
    load_sentencepiece_tokenizer(path);
    ADD_FAILURE() << "read";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("268435457 bytes, more than any SentencePiece model has"));
  }
  std::filesystem::remove(path);
}

TEST(SentencePieceFile, MissingAndUnreadableFilesAreNamed) {
  for (const char* path : {"/nonexistent/tokenizer.model", "/"}) {
    try {
      load_sentencepiece_tokenizer(path);
      ADD_FAILURE() << path;
    } catch (const std::runtime_error& error) {
      EXPECT_THAT(error.what(), HasSubstr(path));
    }
  }
}

}  // namespace
}  // namespace tramontane
