// A shared library that is no backend.
extern "C" __attribute__((visibility("default"))) int premotor_something_else() { return 1; }
