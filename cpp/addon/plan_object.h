// Plans in JavaScript: building, checking, reading what they say, and the ceilings that their time is predicted from.
#pragma once

#include <napi.h>

namespace premotor::addon {

// Adds buildPlan, verifyPlan, planDirectory, outlineCheckpoint, tunedFor and ceilings to the exports.
void define_plans(Napi::Env env, Napi::Object exports);

}  // namespace premotor::addon
