# Cross build for 64-bit ARM Linux, linked with the libraries of the robot's own system: what the arm64 package holds (Debian package
# g++-aarch64-linux-gnu). The tests' build is linked statically instead (setup/aarch64.cmake).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
