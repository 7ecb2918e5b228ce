#!/bin/bash
# Run a command with the workspace sourced, and with a home folder that the container's user can write.
set -e
source /ros2_ws/install/setup.bash
if [ ! -w "${HOME:-/}" ]; then
  export HOME=/tmp/home
  mkdir -p "$HOME"
fi
exec "$@"
