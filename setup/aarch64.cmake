# Cross build for 64-bit ARM Linux (Debian packages g++-aarch64-linux-gnu and qemu-user-static), statically linked, so that an emulator of user
# programs runs the result without a foreign root file system:
#     cmake -S . -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=setup/aarch64.cmake -DPREMOTOR_TESTS=ON
# setup/test-aarch64.mjs does it for npm test.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
