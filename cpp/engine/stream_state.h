// The video encoder's streams as bytes, so that an episode can be rebuilt without its pictures. The bytes belong to one
// checkpoint, job and precision (the tag says which) and to this machine's byte order; anything else is refused.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/vae.h"

namespace premotor::engine {

// Layout: magic, hash of `tag`, number of streams, per stream height, width and the sizes of its histories (all 64
// bits), the histories' floats, a hash of all that came before.
std::vector<std::uint8_t> pack_streams(std::span<const VaeStreamState> streams, const std::string& tag);

// `layout`: streams that ran over one picture each, whose sizes the data must have. Errors: RESTORE_STATE (nothing was
// written).
Status unpack_streams(std::span<const std::uint8_t> data, const std::string& tag,
                      std::span<const VaeStreamState> layout, std::vector<VaeStreamState>* streams);

}  // namespace premotor::engine
