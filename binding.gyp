# A thin shim: tools that expect node-gyp end up in CMake, so that the list of sources exists once (CMakeLists.txt).
{
  "targets": [
    {
      "target_name": "premotor",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "message": "Building premotor.node with CMake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["<(module_root_dir)/build/always-run"],
          "action": ["node", "<(module_root_dir)/setup/build.mjs", "native"]
        }
      ]
    }
  ]
}
