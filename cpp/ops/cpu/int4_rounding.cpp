// The search for a group's scale; see int4_rounding.h. For given q the best scale is s = sum(w q) / sum(q^2), and it
// leaves sum(w^2) - sum(w q)^2 / sum(q^2): a candidate is judged by that gain alone, without knowing the scale.
#include "ops/cpu/int4_rounding.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "base/half.h"

namespace premotor::ops {
namespace {

// Four values at a time, which every processor has; two such sums side by side.
typedef float Four __attribute__((vector_size(16)));
constexpr int kLanes = 8;
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: rounds to the nearest integer

// Candidate scales are max|w| / divisor. Below 8 no value is clipped; above, the largest are, and the rest gets finer.
constexpr float kDivisorLeast = 6.0f, kDivisorMost = 10.0f, kDivisorStep = 0.25f;
constexpr int kRefinements = 2;

// The group, padded with zeros to whole lanes: they round to 0 and change no sum.
struct Padded {
  float w[kInt4GroupMax];
  std::int64_t count;
  float most = 0;

  Padded(const float* values, std::int64_t n) : count((n + kLanes - 1) / kLanes * kLanes) {
    for (std::int64_t i = 0; i < count; ++i) w[i] = i < n ? values[i] : 0.0f;
    for (std::int64_t i = 0; i < n; ++i) most = std::max(most, std::abs(values[i]));
  }
};

inline float rounded(float value, float inverse) {
  return std::min(std::max(value * inverse, -8.0f), 7.0f) + kRound - kRound;
}

struct Fit {
  double wq = 0, qq = 0;
  [[nodiscard]] double gain() const { return qq == 0 ? 0 : wq * wq / qq; }
  [[nodiscard]] float scale() const { return qq == 0 ? 0.0f : static_cast<float>(wq / qq); }
};

inline Four load(const float* p) {
  Four v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

// Four values as `rounded` has them.
inline Four rounded(Four value, float inverse) {
  constexpr Four least = {-8.0f, -8.0f, -8.0f, -8.0f}, most = {7.0f, 7.0f, 7.0f, 7.0f};
  Four v = value * inverse;
  v = v < least ? least : v;
  v = v > most ? most : v;
  return v + kRound - kRound;
}

Fit fit(const Padded& group, float inverse) {
  Four wq[2] = {}, qq[2] = {};
  for (std::int64_t i = 0; i < group.count; i += kLanes)
    for (int j = 0; j < 2; ++j) {
      const Four w = load(group.w + i + 4 * j), q = rounded(w, inverse);
      wq[j] += w * q;
      qq[j] += q * q;
    }
  Fit sums;
  for (int j = 0; j < kLanes; ++j) {
    sums.wq += wq[j / 4][j % 4];
    sums.qq += qq[j / 4][j % 4];
  }
  return sums;
}

// What rounding with this very scale leaves.
double error_of(const Padded& group, float scale) {
  const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
  double error = 0;
  for (std::int64_t i = 0; i < group.count; ++i) {
    const double left = static_cast<double>(group.w[i]) - static_cast<double>(scale) * rounded(group.w[i], inverse);
    error += left * left;
  }
  return error;
}

// A group whose scale would not be a normal number is as good as zero, and its inverse would not be finite.
constexpr float kScaleLeast = 1.17549435e-38f;

float usable(float scale) {
  const float stored = round_to_bf16(scale);
  return std::abs(stored) < kScaleLeast || !std::isfinite(stored) ? 0.0f : stored;
}

float search(const Padded& group, float plain) {
  Fit best;
  for (float divisor = kDivisorLeast; divisor <= kDivisorMost; divisor += kDivisorStep)
    for (const float sign : {1.0f, -1.0f}) {
      const Fit found = fit(group, sign * divisor / group.most);
      if (found.gain() > best.gain()) best = found;
    }
  for (int i = 0; i < kRefinements && best.scale() != 0.0f; ++i) {
    const Fit found = fit(group, 1.0f / best.scale());
    if (found.gain() <= best.gain()) break;
    best = found;
  }
  const float scale = usable(best.scale());
  return error_of(group, scale) < error_of(group, plain) ? scale : plain;
}

}  // namespace

Int4Group round_int4(const float* w, std::int64_t count, Int4Rounding how, std::int8_t* q) {
  assert(count >= 1 && count <= kInt4GroupMax);
  const Padded group(w, count);
  float scale = usable(group.most / 7.0f);
  if (how == Int4Rounding::searched && scale != 0.0f) scale = search(group, scale);
  const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
  for (std::int64_t i = 0; i < count; ++i) q[i] = static_cast<std::int8_t>(rounded(group.w[i], inverse));
  return {scale, error_of(group, scale)};
}

}  // namespace premotor::ops
