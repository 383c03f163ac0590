#!/bin/bash
# Register the model of HEAD, and make it the champion where a decision of the ledger says so. Pushes the tags.
# Needs git, md5sum and the POSIX tools only, for a job that installs nothing. It creates the tags that `sentiment promote` and
# docs/registry.md describe.
#
# The model is the MD5 of models/selected in dvc.lock. If the ledger has the decision to promote it in place of the
# present champion, and the model has not been the champion since, a version is registered and becomes the champion;
# otherwise it is only registered. Exit status 1: no tag was pushed; a message says why.
set -euo pipefail

say() { echo "assign-champion: $1"; }
fail() {
  echo "assign-champion: $1" >&2
  exit 1
}

# A runner of a CI service has no author.
if ! git var GIT_COMMITTER_IDENT > /dev/null 2>&1; then
  export GIT_COMMITTER_NAME="sentiment retrain" GIT_COMMITTER_EMAIL="retrain@localhost"
fi
cd "$(git rev-parse --show-toplevel)"
head=$(git rev-parse --verify HEAD)

# The MD5 of an output in dvc.lock of a commit.
read_md5() {
  git show "$1:dvc.lock" | awk -v path="$2" '
    $1 == "-" { current = $2 == "path:" ? $3 : "" }
    $1 == "md5:" && current == path && !found { print $2; found = 1 }'
}

# A detail of a tag, such as Action.
read_detail() { git for-each-ref --format='%(contents:body)' "refs/tags/$1" | sed -n "s/^$2: //p"; }

# The model of HEAD.
git cat-file -e "$head:dvc.lock" 2> /dev/null || fail "this commit has no dvc.lock"
metrics=$(git show "$head:metrics/evaluate.json") || fail "this commit has no metrics/evaluate.json"
# The limits that the model violates are in this file: one that was edited, or comes from another run, says nothing.
metrics_md5=$(git cat-file blob "$head:metrics/evaluate.json" | md5sum | cut -d ' ' -f 1)
[ "$metrics_md5" = "$(read_md5 "$head" metrics/evaluate.json)" ] ||
  fail "metrics/evaluate.json is not the file that dvc.lock of this commit records; commit the results of one \`dvc repro\`"
candidate=$(sed -n 's/.*"selected": *"\([a-z]*\)".*/\1/p' <<< "$metrics")
artifact_md5=$(read_md5 "$head" models/selected)
model_md5=$(read_md5 "$head" "models/$candidate/model.safetensors")
[ -n "$artifact_md5" ] && [ -n "$model_md5" ] || fail "dvc.lock of this commit names no models/selected"

# The registry and the ledger at origin. A clone of a CI service may lack both.
git fetch --quiet --no-tags origin "+refs/tags/sentiment*:refs/tags/sentiment*" || fail "cannot read the tags of origin"
git ls-remote origin refs/heads/ledger > /dev/null || fail "cannot read the ledger of origin"
ledger=
if [ -n "$(git ls-remote origin refs/heads/ledger)" ]; then
  git fetch --quiet --no-tags origin "+refs/heads/ledger:refs/remotes/origin/ledger" || fail "cannot fetch the ledger"
  ledger=$(git cat-file blob refs/remotes/origin/ledger:decisions.jsonl) || fail "the branch ledger has no decisions.jsonl"
fi

# Annotated tags of commits in GTO's convention, by time and number: time, number, commit, name.
tags=$(git for-each-ref --format='%(*objecttype) %(taggerdate:unix) %(*objectname) %(refname:strip=2)' \
  'refs/tags/sentiment@*' 'refs/tags/sentiment#*' |
  awk '$1 == "commit" && $4 ~ /^sentiment(@v[0-9]+\.[0-9]+\.[0-9]+!?|#[A-Za-z0-9][A-Za-z0-9_\/-]*!?)(#[0-9]+)?$/ {
    number = $4 ~ /#[0-9]+$/ ? $4 : "0"
    sub(/.*#/, "", number)
    print $2, number + 0, $3, $4
  }' | sort -k 1,1n -k 2,2n)

# As Registry in src/sentiment/registry/state.py reads them: the state, one value per line.
state=$(awk -v head="$head" '
  function rank(name,  parts) {
    split(substr(name, 12), parts, ".")
    return (parts[1] * 1000 + parts[2]) * 1000 + parts[3]
  }
  {
    newest = $1
    if ($2 > counter) counter = $2
  }
  $4 ~ /^sentiment@v/ {
    name = $4
    sub(/!.*|#.*/, "", name)
    major = name
    gsub(/sentiment@v|\..*/, "", major)
    if (major + 0 > highest) highest = major + 0
    if ($4 ~ /!/) { for (commit in version) if (version[commit] == name) delete version[commit] }
    else version[$3] = name
  }
  $4 ~ /^sentiment#champion[!#]/ {
    last = $4
    champion = $3
    assigned[$3] = $4 !~ /!/
  }
  END {
    print "newest=" newest + 0
    print "counter=" counter + 1
    print "next=sentiment@v" highest + 1 ".0.0"
    print "version=" version[head]
    print "last=" last
    print "champion=" champion
    print "champion_version=" version[champion]
    for (commit in assigned)
      if (assigned[commit] && version[head] && rank(version[commit]) > rank(version[head]))
        print "higher=" version[commit] " " commit
  }' <<< "$tags")
get() { sed -n "s/^$1=//p" <<< "$state"; }
newest=$(get newest) counter=$(get counter) version=$(get version) last=$(get last)
champion=$(get champion) champion_version=$(get champion_version)

champion_md5=
if [ -n "$last" ]; then
  case $last in *'!'*) fail "$last: unassigned by hand; use \`sentiment promote\`" ;; esac
  [ -n "$champion_version" ] || fail "$last: its commit has no registered version; use \`sentiment promote\`"
  champion_md5=$(read_md5 "$champion" models/selected)
  recorded=$(read_detail "$last" Artifact-MD5)
  [ "${recorded:-$champion_md5}" = "$champion_md5" ] || fail "$last: its message names another model than its commit"
fi
if [ "$champion_md5" = "$artifact_md5" ]; then
  say "the model is that of the champion, $champion_version"
  exit 0
fi

# The newest decision on both models, by its time, counts if it is to promote. The fields of a line have a fixed order up to the reason.
string='"([^"\\]|\\.)*"'
wanted='"champion": '$([ -n "$champion_md5" ] && echo "\"${champion_md5//./\\.}\"" || echo null)
wanted="$wanted, \"challenger\": \"${artifact_md5//./\\.}\""
rest="\"batch\": ($string|null), \"commit\": $string, \"created\": $string, \"is_look\": (true|false)"
line="^\\{\"id\": \"[0-9a-f]{32}\", \"outcome\": $string, \"test\": $string, $wanted, $rest, \"verdict\": ($string|null), \"reason\": $string"
entry=$(grep -Eo "$line" <<< "$ledger" | sed -E 's/^(.*"created": "([^"]*)".*)$/\2 \1/' |
  LC_ALL=C sort | tail -n 1 | cut -d ' ' -f 2-) || true
# A string of the entry, without JSON's escapes of quotes and backslashes.
read_field() {
  grep -Eo "\"$1\": $string" <<< "$entry" | sed -E 's/^"[a-z_]+": "(.*)"$/\1/' |
    awk '{ gsub(/\\\\/, "\001"); gsub(/\\"/, "\""); gsub(/\001/, "\\"); print }'
}

[ "$(read_field outcome)" = promote ] || entry=

# As in src/sentiment/registry/promotion.py: a decision counts once. If the model has been the champion since, it was
# rolled back or replaced, and this commit must not undo that.
is_used() {
  # For each assignment its date in UTC, if it is an annotated tag, then its details.
  TZ=UTC0 git for-each-ref --format='%01%(objecttype) %(taggerdate:format-local:%Y-%m-%dT%H:%M:%S)%0a%(contents:body)' \
    'refs/tags/sentiment#champion' 'refs/tags/sentiment#champion#*' |
    LC_ALL=C awk -v id="$1" -v md5="$artifact_md5" -v created="${2:0:19}" '
      /^\001/ { date = $1 == "\001tag" ? $2 : "" }
      date != "" && ($0 == "Ledger-ID: " id || ($0 == "Artifact-MD5: " md5 && date >= created)) { used = 1 }
      END { exit !used }'
}
if [ -n "$entry" ] && is_used "$(read_field id)" "$(read_field created)"; then
  say "the decision of the ledger has been used: this model has been the champion since"
  entry=
fi
if [ -n "$entry" ] && ! grep -Eq '"violated_limits": *\[\]' <<< "$metrics"; then
  say "the model violates limits, see metrics/evaluate.json"
  entry=
fi

created=()
# Create an annotated tag, dated at least a second after the newest one, with $details as its message.
create_tag() {
  local now
  now=$(date +%s)
  newest=$((now > newest ? now : newest + 1))
  printf '%s\n\n%s\n' "$3" "$details" |
    GIT_COMMITTER_DATE="@$newest +0000" git tag --annotate --cleanup=verbatim --file=- "$1" "$2" ||
    fail "git could not create the tag $1"
  created+=("$1")
}

hashes="Model-MD5: $model_md5
Artifact-MD5: $artifact_md5"
if [ -n "$entry" ]; then
  reason=$(read_field reason) verdict=$(read_field verdict)
  details="Reason: $reason
Verdict: ${verdict:-not compared}
Comparison: $reason
Ledger-ID: $(read_field id)
Test-MD5: $(read_field test)
${champion_version:+Previous: $champion_version
}Action: promote
$hashes"
else
  details="Reason: no decision of the ledger promotes this model
Action: register
$hashes"
fi

if [ -z "$version" ]; then
  version=$(get next)
  create_tag "$version" "$head" "Register sentiment ${version#sentiment@}"
elif [ -z "$entry" ]; then
  say "$version is registered already; no decision of the ledger promotes it"
  exit 0
fi
if [ -n "$entry" ]; then
  while read -r name commit; do
    [ -n "$name" ] || continue
    create_tag "sentiment#champion!#$counter" "$commit" "Unassign champion from $name"
    counter=$((counter + 1))
  done <<< "$(get higher | sort -V)"
  create_tag "sentiment#champion#$counter" "$head" "Assign champion to sentiment ${version#sentiment@}"
fi

if ! git push --quiet --atomic origin "${created[@]/#/refs/tags/}"; then
  git tag --delete "${created[@]}" > /dev/null
  fail "the tags ${created[*]} were not pushed; git's message above says why"
fi
if [ -n "$entry" ]; then
  say "$version is the champion: $reason"
else
  say "$version is registered; no decision of the ledger promotes it"
fi
