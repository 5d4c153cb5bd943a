#!/bin/bash
# Formatting and static analysis of all C. Wants clang-format and cppcheck, and a configured build/dev.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

status=0
mapfile -t files < <(git ls-files '*.c' '*.h')
echo "clang-format: ${#files[@]} files"
clang-format --dry-run --Werror "${files[@]}" || status=1

[ -s build/dev/compile_commands.json ] || cmake --preset dev >/dev/null
echo "cppcheck"
# False alarms of cppcheck 2.10: arrays that a conditional expression puts into the struct after realloc; an array of 256
# that is indexed by a byte of the wire.
cppcheck --project=build/dev/compile_commands.json --cppcheck-build-dir="$(mkdir -p build/cppcheck && echo build/cppcheck)" -j 2 -q \
  --enable=warning,performance,portability --inline-suppr --error-exitcode=1 --suppress=missingIncludeSystem \
  --suppress='*:/usr/include/*' \
  --suppress=memleak:plugin/registry.c --suppress=arrayIndexOutOfBoundsCond:tests/bench/publisher.c || status=1
exit $status
