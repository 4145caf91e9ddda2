#!/usr/bin/env bash
# What a machine with an NVIDIA GPU and CUDA 13 is to be asked first, within ten minutes: builds the GPU backend, runs every kernel's test on the device, then
# the reference's recorded calls through the engine on it, then both under compute-sanitizer where that is installed. Prints TAP and leaves everything in
# OUT (default build/gpu). Speed comes after correctness: nothing is timed here yet.
#     bash bench/gpu.sh [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-build/gpu}
mkdir -p "$out"
if ! command -v nvidia-smi > /dev/null || ! nvidia-smi -L | tee "$out/device.txt"; then
  echo "SKIPPED: no NVIDIA GPU answers (nvidia-smi). Nothing was run, nothing is claimed."
  exit 0
fi
{ date -u +%FT%TZ; git rev-parse HEAD; nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv; } > "$out/about.txt"
node setup/build.mjs native tests
node setup/cuda.mjs --check --library --run 2>&1 | tee "$out/kernels.tap"
build/tests/bin/cuda_golden_test --library build/Release/premotor-cuda.so | tee "$out/golden.tap" | grep -v '^ok' || true
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck synccheck initcheck; do
    echo "== compute-sanitizer $tool"
    timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 9 \
      build/tests/bin/cuda_golden_test --library build/Release/premotor-cuda.so > "$out/$tool.txt" 2>&1 &&
      echo "$tool: clean" || echo "$tool: exit code $?, see $out/$tool.txt"
  done
else
  echo "SKIPPED: compute-sanitizer is not installed"
fi
grep -c '^not ok' "$out/golden.tap" > /dev/null && { echo "FAILED: see $out/golden.tap"; exit 1; }
echo "passed: $(grep -c '^ok' "$out/golden.tap") assertions of recorded calls on $(head -1 "$out/device.txt")"
