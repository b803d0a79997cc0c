#!/usr/bin/env bash
# Proves the tests: plants each bug in a copy of the tree and demands that the test it names fails.
# Usage: planted/run.sh [name ...]   names as the patch files, with or without .patch; default: all. JOBS=2 run at a time, LOGS=dir keeps what the tests said.
# CONTROL=1 demands the contrary: the same tests, in the same binaries, pass while no bug is planted.
# Exit 1 if a bug survived, did not apply or did not compile; 2 if the runner itself failed.
set -u
cd "$(dirname "$0")/.." || exit 2
root=$PWD
work=$(mktemp -d) || exit 2
trap 'sweep "$work"; rm -rf "$work"' EXIT
limit=180s # a bug may make its test hang; that is a failure too
jobs=${JOBS:-2}

patches=()
if [ $# -eq 0 ]; then patches=("$root"/planted/*.patch); else for n; do patches+=("$root/planted/$(basename "${n%.patch}").patch"); done; fi
for p in "${patches[@]}"; do [ -f "$p" ] || { echo "no such planted bug: $p" >&2; exit 2; }; done

# The tree as it is, without what is not part of it.
mkdir "$work/tree" "$work/alone"
{ git ls-files -z; git ls-files -z -o --exclude-standard -- '*.go'; } | sort -zu | while IFS= read -r -d '' f; do [ -e "$f" ] && printf '%s\0' "$f"; done |
  tar -c --null -T - | tar -x -C "$work/tree" || exit 2

say() { printf '%-34s %s\n' "$1" "$2"; }

# The command that a patch names, as the array test; later lines of the header are for readers.
command_of() {
  local line
  line=$(sed -n 's/^# test: //p' "$1" | head -1)
  case $line in "go test ./"*) eval "test=($line)" ;; *) say "$(basename "$1" .patch)" "BAD: no line '# test: go test ./...'"; return 1 ;; esac
}

# Judges a test that has run: NAME, its exit code, its log, seconds.
judge() {
  if [ -n "${LOGS:-}" ]; then mkdir -p "$LOGS" && cp "$3" "$LOGS/$1.log"; fi
  if grep -qE 'no tests to run|\[build failed\]|\[setup failed\]' "$3"; then say "$1" "BAD: $(grep -m1 -vE '^#' "$3")"; return 1; fi
  if [ -n "${CONTROL:-}" ]; then
    if [ "$2" -ne 0 ]; then say "$1" "FAILS WITHOUT ITS BUG ($4 s)"; tail -n 20 "$3"; return 1; fi
    say "$1" "passes without its bug ($4 s)"
    return
  fi
  if [ "$2" -eq 0 ]; then say "$1" "SURVIVED ($4 s)"; return 1; fi
  say "$1" "caught ($4 s)"
}

# sweep DIR ends what a test whose program is below it has left behind: where the bug is in what ends processes some live on, and would take the processors from
# all that comes after.
sweep() {
  local p
  for p in $(find /proc -maxdepth 2 -path '/proc/[0-9]*/exe' -lname "$1/*" -printf '%h\n' 2>/dev/null); do kill -KILL "${p#/proc/}" 2>/dev/null; done
}

# One bug of those that are all in one tree: which one is planted says the name of the program.
together() {
  local name=$1 test dir bin words=() i rc start=$SECONDS
  command_of "$root/planted/$name.patch" || return 1
  dir=${test[2]}
  for ((i = 3; i < ${#test[@]}; i++)); do
    case ${test[i]} in
      -run | -run=* | -count=* | -timeout | -timeout=*) words+=("-test.${test[i]#-}") ;;
      *) words+=("${test[i]}") ;;
    esac
  done
  [ -z "${CONTROL:-}" ] || words+=(-test.timeout=20m)
  bin=$(basename "$dir")
  [ "$bin" != . ] || bin=$(basename "$module")
  bin=$work/bin/$(awk -v d="$dir" '$2 == d { print $1 }' "$work/packages")/$bin.test
  ln "$bin" "$work/taken/$name/${CONTROL:+not-}$name.test" || return 1
  (cd "$work/tree/$dir" && "$work/taken/$name/${CONTROL:+not-}$name.test" -test.timeout=$limit "${words[@]}") >"$work/$name.log" 2>&1
  rc=$?
  sweep "$work/taken/$name"
  judge "$name" $rc "$work/$name.log" $((SECONDS - start))
}

# One bug that has to be planted by itself, in a worker's own copy of the tree. A test that cannot be built, or that is not there, proves nothing.
alone() {
  local name=$1 dir=$2 patch=$root/planted/$1.patch test rc start=$SECONDS log=$work/$1.log
  command_of "$patch" || return 1
  if [ -z "${CONTROL:-}" ] && ! (cd "$dir" && patch -p1 -s --no-backup-if-mismatch <"$patch") >"$log" 2>&1; then
    say "$name" "BAD: does not apply"
    rm -rf "$dir" && cp -r "$work/plain" "$dir"
    return 1
  fi
  (cd "$dir" && GOFLAGS="${GOFLAGS:-} -timeout=$limit" "${test[@]}") >"$log" 2>&1
  rc=$?
  [ -n "${CONTROL:-}" ] || (cd "$dir" && patch -p1 -s -R --no-backup-if-mismatch <"$patch") >/dev/null 2>&1 || { rm -rf "$dir" && cp -r "$work/plain" "$dir"; }
  judge "$name" $rc "$log" $((SECONDS - start))
}

# Most bugs are put into one tree together (internal/planted says how), and each test binary is built once for all of them.
cp -r "$work/tree" "$work/plain" || exit 2
go run ./internal/planted "$work/tree" "${patches[@]}" >"$work/together" || exit 2
names=() rest=()
for p in "${patches[@]}"; do
  n=$(basename "$p" .patch)
  if grep -qxF "$n" "$work/together"; then names+=("$n"); else rest+=("$n"); fi
done
# go test -c names a binary after its package's last element: those that share one are built in different rounds, into directories of their own.
for n in "${names[@]}"; do command_of "planted/$n.patch" >/dev/null && echo "${test[2]}"; done | sort -u | awk -F/ '{ print seen[$NF]++, $0 }' >"$work/packages"
for round in $(cut -d ' ' -f 1 "$work/packages" | sort -u); do
  mapfile -t dirs < <(sed -n "s/^$round //p" "$work/packages")
  mkdir -p "$work/bin/$round"
  if ! (cd "$work/tree" && go test -c -o "$work/bin/$round/" "${dirs[@]}") >"$work/built" 2>&1; then
    cat "$work/built" >&2
    echo "planted bugs: the tree with all of them does not compile" >&2
    exit 1
  fi
done
module=$(cd "$work/tree" && go list -m) || exit 2

# Each worker takes the next one that nobody has taken.
mkdir "$work/taken"
worker() {
  local bad=0 n dir=$work/alone/$1
  if [ ${#rest[@]} -gt 0 ]; then cp -r "$work/plain" "$dir" || return 1; fi
  for n in "${rest[@]}" "${names[@]}"; do
    mkdir "$work/taken/$n" 2>/dev/null || continue
    if grep -qxF "$n" "$work/together"; then together "$n"; else alone "$n" "$dir"; fi || bad=1
  done
  return $bad
}
failed=0
for ((w = 0; w < jobs; w++)); do worker "$w" & done
for ((w = 0; w < jobs; w++)); do wait -n || failed=1; done
if [ $failed -ne 0 ]; then echo "planted bugs: some survived or are out of date" >&2; exit 1; fi
echo "planted bugs: all ${#patches[@]} ${CONTROL:+absent, and their tests pass}${CONTROL:-caught}"
