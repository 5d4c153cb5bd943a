#!/bin/bash
# Builds everything and runs every test: unit, fuzz replay, SQL, integration, checks. One command on a bare machine.
#
#   tests/run.sh [PRESET] [ARGUMENTS OF ctest]
#
#   tests/run.sh                          what a change must pass
#   tests/run.sh asan -L integration      only the integration tests, sanitized
#
# Packages that are missing are installed (as root, or with sudo). The last line is the total, counted in test cases.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../examples/lib.sh"
cd "$repository"

preset=dev
if [[ ${1:-} =~ ^[a-z]+$ ]]; then
  preset=$1
  shift
fi

# need_modules ROOM DIRECTORY ELSE: Node, and the modules of tests/ROOM in build/DIRECTORY. ELSE says what happens where they cannot be had.
need_modules() {
  local room=tests/$1 directory=build/$2
  command -v npm >/dev/null || (need_packages nodejs npm) || true
  cmp -s "$room/package-lock.json" "$directory/installed" && [ -d "$directory/node_modules" ] && return 0
  step "Installing the modules of $room"
  mkdir -p "$directory"
  cp "$room/package.json" "$room/package-lock.json" "$directory/"
  if (cd "$directory" && npm ci --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error); then
    cp "$room/package-lock.json" "$directory/installed"
  else
    echo "npm cannot install them: $3"
  fi
}

need_packages "${build_packages[@]}" mosquitto mosquitto-clients postgresql openssl nodejs libcmocka-dev faketime valgrind postgresql-15-pgtap \
  libtap-parser-sourcehandler-pgtap-perl chromium
need_modules contract node "the tests of the contract will be skipped"
need_modules notifier peers "the test of the notifier against programs of others will fail"
step "Building ($preset)"
mkdir -p build
cmake --preset "$preset" >build/configure.log 2>&1 || { cat build/configure.log && die "cmake failed"; }
cmake --build --preset "$preset" -j "$(nproc)" || die "the build failed"

step "Testing ($preset)"
status=0
ctest --preset "$preset" "$@" || status=$?

# ctest counts programs. What counts is cases: cmocka's and pg_prove's own figures, one for every other test, and one for a
# program that failed without saying how.
awk '
  /^[0-9]+\/[0-9]+ Testing: / { passed = failed = 0 }
  /^\[  PASSED  \] [0-9]+ test/ { passed += $4 }
  /^\[  FAILED  \] [0-9]+ test/ { failed += $4 }
  /^Files=[0-9]+, Tests=[0-9]+/ { sub(/Tests=/, "", $2); passed += $2 }
  /^Test Passed\.$/ { total_passed += passed + failed ? passed : 1 }
  /^Test (Failed|Timeout)/ { total_passed += passed; total_failed += failed ? failed : 1 }
  END { printf "\n%d passed, %d failed\n", total_passed, total_failed; exit total_failed != 0 }
' "build/$preset/Testing/Temporary/LastTest.log" || status=1
exit $status
