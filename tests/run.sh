#!/bin/bash
# Builds everything and runs every test: unit, fuzz replay, SQL, integration, checks. One command on a bare machine.
#
#   tests/run.sh [PRESET] [ARGUMENTS OF ctest]
#
#   tests/run.sh                          what a change must pass
#   tests/run.sh asan -L integration      only the integration tests, sanitized
#
# Packages that are missing are installed (as root, or with sudo). The last line is the total, counted in test cases. With
# CHAT_TEST_SECOND_LOOK in the environment, one or two programs that failed run once more, alone; both runs are shown.
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
logs=build/$preset/Testing/Temporary
rm -f "$logs/FirstTest.log"
status=0
ctest --preset "$preset" "$@" || status=$?

# A second look, on a machine that others share: at most two programs with processes and timers of their own, alone. Not at what is true
# however a second run ends: a sanitizer's report, a crash, and the verdicts on what was lost under faults.
if [ $status != 0 ] && [ -n "${CHAT_TEST_SECOND_LOOK:-}" ] && [ "$(wc -l <"$logs/LastTestsFailed.log")" -le 2 ] &&
  ! grep -vqE ':(integration|notifier|contract)/' "$logs/LastTestsFailed.log" &&
  ! grep -qE '(Address|Leak|Thread)Sanitizer|: runtime error: |Segmentation fault|stack smashing|double free' "$logs/LastTest.log"; then
  step "A second look at what failed"
  mv "$logs/LastTest.log" "$logs/FirstTest.log"
  unsteady=$(cut -d : -f 2 "$logs/LastTestsFailed.log")
  ctest --preset "$preset" --rerun-failed -j 1 && status=0
  [ $status != 0 ] || printf 'unsteady: %s (failed once, see above; passed alone)\n' $unsteady
fi

# ctest counts programs. What counts is cases: cmocka's and pg_prove's own figures, one for every other test, and one for a
# program that failed without saying how. Of a program that ran twice, the second time.
cat "$logs/FirstTest.log" "$logs/LastTest.log" 2>/dev/null | awk '
  /^[0-9]+\/[0-9]+ Testing: / { name = $3; passed = failed = 0 }
  /^\[  PASSED  \] [0-9]+ test/ { passed += $4 }
  /^\[  FAILED  \] [0-9]+ test/ { failed += $4 }
  /^Files=[0-9]+, Tests=[0-9]+/ { sub(/Tests=/, "", $2); passed += $2 }
  /^Test Passed\.$/ { all_passed[name] = passed + failed ? passed : 1; all_failed[name] = 0 }
  /^Test (Failed|Timeout)/ { all_passed[name] = passed; all_failed[name] = failed ? failed : 1 }
  END {
    for (name in all_passed) { total_passed += all_passed[name]; total_failed += all_failed[name] }
    printf "\n%d passed, %d failed\n", total_passed, total_failed
    exit total_failed != 0
  }
' || status=1
exit $status
