#!/bin/sh
# Append decisions to origin's branch `ledger`, and push it. Needs git and the POSIX tools only.
#
#   append-ledger.sh FILE
#
# FILE has a decision per line, as `sentiment retrain` writes them to reports/decision.jsonl. A decision whose id the
# branch has already is left out, so the script may run twice. Neither index nor working tree changes. Exit status 1:
# nothing was pushed; a message says why.
set -eu

BRANCH=refs/heads/ledger
NAME=decisions.jsonl
ATTEMPTS=5

fail() {
  echo "append-ledger: $1" >&2
  exit 1
}

[ $# -eq 1 ] || fail "usage: append-ledger.sh FILE"
[ -r "$1" ] || fail "$1: no such file"
file=$1

# The fields of a line have a fixed order; the id is the first one.
if grep -Evq '^\{"id": "[0-9a-f]{32}", "outcome": ".*\}$' "$file"; then
  fail "$file: line $(grep -Evn '^\{"id": "[0-9a-f]{32}", "outcome": ".*\}$' "$file" | head -n 1 | cut -d : -f 1) is not a decision"
fi

# A runner of a CI service has no author.
if ! git var GIT_COMMITTER_IDENT > /dev/null 2>&1; then
  export GIT_AUTHOR_NAME="sentiment retrain" GIT_AUTHOR_EMAIL="retrain@localhost"
  export GIT_COMMITTER_NAME="$GIT_AUTHOR_NAME" GIT_COMMITTER_EMAIL="$GIT_AUTHOR_EMAIL"
fi

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

# Read origin's branch into $temporary/known; set `old` to its commit, empty if there is none.
read_origin() {
  git ls-remote origin "$BRANCH" > "$temporary/listed" || return 1
  old=
  : > "$temporary/known"
  if [ -s "$temporary/listed" ]; then
    git fetch --quiet --no-tags origin "+$BRANCH:refs/remotes/origin/ledger" || return 1
    old=$(git rev-parse --verify refs/remotes/origin/ledger)
    git cat-file blob "$old:$NAME" > "$temporary/known" ||
      fail "origin's branch ledger has no file $NAME: the name is taken by another branch"
  fi
}

attempt=1
while :; do
  if read_origin; then
    # Of lines with the same id, which are the first 41 characters, the first one counts.
    awk 'NF && !seen[substr($0, 1, 41)]++' "$temporary/known" "$file" > "$temporary/united"
    if cmp -s "$temporary/known" "$temporary/united"; then
      echo "append-ledger: the ledger has these decisions already"
      exit 0
    fi
    blob=$(git hash-object -w --stdin < "$temporary/united")
    tree=$(printf '100644 blob %s\t%s\n' "$blob" "$NAME" | git mktree)
    commit=$(git commit-tree ${old:+-p "$old"} -m "Append decisions" "$tree")
    # Refused if another job has pushed meanwhile: then the lines are united again.
    if git push --quiet origin "$commit:$BRANCH"; then
      echo "append-ledger: pushed $(($(wc -l < "$temporary/united") - $(wc -l < "$temporary/known"))) decision(s)"
      exit 0
    fi
  fi
  [ "$attempt" -lt "$ATTEMPTS" ] || fail "the ledger was not pushed in $ATTEMPTS attempts; git's messages above say why"
  sleep 1
  attempt=$((attempt + 1))
done
