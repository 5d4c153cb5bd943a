#!/bin/bash
# Runs a command that needs node and the modules of package-lock.json; without them it says "skipped" and exits with 77.
#
#   tests/contract/with_modules.sh NODE_MODULES COMMAND [ARGUMENT...]
set -euo pipefail
export NODE_PATH=$1
shift
if ! command -v node >/dev/null || [ ! -d "$NODE_PATH/ajv" ]; then
  echo "skipped: node or its modules are missing; tests/run.sh installs them where npm can"
  exit 77
fi
exec "$@"
