#!/bin/sh
# Replace origin's branch `models` by one commit with the content of a folder. Needs git only.
#
#   publish-models.sh FOLDER
#
# FOLDER has the layout of a DVC remote, as `sentiment models pack` writes it. The branch never has a history, so that
# models that nobody needs any more leave the repository. Neither index nor working tree changes. Exit status 1:
# nothing was pushed; a message says why.
set -eu

BRANCH=refs/heads/models

fail() {
  echo "publish-models: $1" >&2
  exit 1
}

[ $# -eq 1 ] || fail "usage: publish-models.sh FOLDER"
[ -d "$1/files/md5" ] || fail "$1: no folder files/md5, so it is no DVC remote"

# A runner of a CI service has no author.
if ! git var GIT_COMMITTER_IDENT > /dev/null 2>&1; then
  export GIT_AUTHOR_NAME="sentiment retrain" GIT_AUTHOR_EMAIL="retrain@localhost"
  export GIT_COMMITTER_NAME="$GIT_AUTHOR_NAME" GIT_COMMITTER_EMAIL="$GIT_AUTHOR_EMAIL"
fi

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

listed=$(git ls-remote origin "$BRANCH") || fail "origin cannot be read; git's message above says why"
old=$(echo "$listed" | cut -f 1)

# Git must not change line ends: a model's file is known by its hash. A text such as config.json would be changed.
mkdir "$temporary/content"
cp -R "$1/files" "$temporary/content/"
echo '* -text' > "$temporary/content/.gitattributes"
GIT_INDEX_FILE=$temporary/index
export GIT_INDEX_FILE
git --work-tree="$temporary/content" -c core.autocrlf=false add --all --force .
tree=$(git write-tree)
unset GIT_INDEX_FILE

if [ -n "$old" ]; then
  git fetch --quiet --no-tags origin "$BRANCH" || fail "origin's branch models cannot be fetched"
  if [ "$(git rev-parse 'FETCH_HEAD^{tree}')" = "$tree" ]; then
    echo "publish-models: the branch has these models already"
    exit 0
  fi
fi

commit=$(git commit-tree -m "Models of the last champions and of open proposals" "$tree")
# Refused if somebody else has pushed since the branch was read.
git push --quiet --force-with-lease="$BRANCH:$old" origin "$commit:$BRANCH" ||
  fail "the branch models was not pushed; git's message above says why"
echo "publish-models: pushed $(git ls-tree -r --name-only "$tree" | grep -c '^files/') files"
