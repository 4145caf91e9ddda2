// The way into the cache, row by row. See kv_store.h.
#include "ops/cpu/kv_store.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "base/half.h"

namespace premotor::ops {
namespace {

template <typename T, typename Convert>
void store_head(const KvLayout& l, std::int64_t head, std::int64_t row, const float* k, const float* v, T* k_plane,
                T* v_plane, Convert convert) {
  constexpr std::int64_t unit = sizeof(T) == 4 ? 1 : 2;
  assert(unit == l.unit());
  T* k_to = k_plane + l.key_at(head, row, 0);
  for (std::int64_t d = 0; d < l.head_dim; d += unit, k_to += kKvPanel * unit)
    for (std::int64_t i = 0; i < std::min(unit, l.head_dim - d); ++i) k_to[i] = convert(k[d + i], 0);
  for (std::int64_t d = 0; d < l.head_dim; d += kKvPanel) {
    T* v_to = v_plane + l.value_at(head, row, d);
    const std::int64_t count = std::min(kKvPanel, l.head_dim - d);
    for (std::int64_t c = 0; c < count; ++c) v_to[c * unit] = convert(v[d + c], 1);
  }
}

// max|x| / 127, not below the smallest normal float; NaN when x has one, so that what is not finite stays visible.
float scale_of(const float* x, std::int64_t count) {
  float most = 1.17549435e-38f * 127.0f;
  bool is_finite = true;
  for (std::int64_t i = 0; i < count; ++i) {
    most = std::max(most, std::abs(x[i]));
    is_finite = is_finite && std::isfinite(x[i]);
  }
  return is_finite ? most / 127.0f : NAN;
}

}  // namespace

void store_kv_row(const Ops::StoreKv& a, const KvLayout& l, std::int64_t i) {
  assert(a.rows[i] >= 0 && a.rows[i] < a.plane_rows);
  for (std::int64_t h = 0; h < l.heads; ++h) {
    const float* k = a.k + i * a.ldx + h * l.head_dim;
    const float* v = a.v + i * a.ldx + h * l.head_dim;
    if (a.dtype == Dtype::f32) {
      store_head(l, h, a.rows[i], k, v, static_cast<float*>(a.k_plane), static_cast<float*>(a.v_plane),
                 [](float value, int) { return value; });
    } else if (a.dtype == Dtype::bf16) {
      store_head(l, h, a.rows[i], k, v, static_cast<std::uint16_t*>(a.k_plane), static_cast<std::uint16_t*>(a.v_plane),
                 [](float value, int) { return f32_to_bf16(value); });
    } else {
      auto* keys = static_cast<std::int8_t*>(a.k_plane);
      auto* values = static_cast<std::int8_t*>(a.v_plane);
      const float scales[2] = {scale_of(k, l.head_dim), scale_of(v, l.head_dim)};
      store_head(l, h, a.rows[i], k, v, keys, values, [&](float value, int which) {
        const float scaled = value / scales[which];
        return static_cast<std::int8_t>(std::isfinite(scaled) ? std::nearbyint(scaled) : 0.0f);
      });
      reinterpret_cast<float*>(keys + l.key_scales())[h * l.rows + a.rows[i]] = scales[0];
      reinterpret_cast<float*>(values + l.value_scales())[h * l.rows + a.rows[i]] = scales[1];
    }
  }
}

}  // namespace premotor::ops
