#!/usr/bin/env bash
# The walk by programs of the command line: `walk.sh PROGRAM URL EMAIL` (README.md).
set -euo pipefail
program=$1 url=$2 email=$3
sync=/api/client/sync
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# send PATH TOKEN TYPE: the file "body" to PATH; the answer goes to the file "answer", its status to the output.
by_curl() {
  curl -sS --compressed -o "$folder/answer" -w '%{http_code}' -H "Authorization:${2:+ Bearer $2}" -H "Content-Type: $3" \
    --data-binary "@$folder/body" "$url$1"
}
by_curl_without_expect() {
  curl -sS -H 'Expect:' -o "$folder/answer" -w '%{http_code}' -H "Authorization:${2:+ Bearer $2}" -H "Content-Type: $3" \
    --data-binary "@$folder/body" "$url$1"
}
by_curl_http10() {
  curl -sS --http1.0 -H 'Connection: keep-alive' --compressed -o "$folder/answer" -w '%{http_code}' \
    -H "Authorization:${2:+ Bearer $2}" -H "Content-Type: $3" --data-binary "@$folder/body" "$url$1"
}
by_curl_chunked() {
  curl -sS -H 'Transfer-Encoding: chunked' -o "$folder/answer" -w '%{http_code}' -H "Authorization:${2:+ Bearer $2}" \
    -H "Content-Type: $3" --data-binary "@$folder/body" "$url$1"
}
# wget ends with 8 for an answer of 4xx or 5xx; its log has the status of the last answer.
by_wget() {
  wget -nv -S --content-on-error --tries=1 -O "$folder/answer" --header="Authorization: Bearer $2" \
    --header="Content-Type: $3" --post-file="$folder/body" "$url$1" 2>"$folder/log" || [ $? = 8 ]
  grep -o 'HTTP/1.1 [0-9]*' "$folder/log" | tail -1 | cut -d' ' -f2
}

step() {
  local status
  status=$("by_$program" "$2" "$3" "${4:-application/json}")
  case $1 in
    pull | again) echo "$1 $status $(grep -o '"name":' "$folder/answer" | wc -l)" ;;
    *) echo "$1 $status" ;;
  esac
}
small() { printf '%s' "$1" >"$folder/body"; }
spaces() { head -c "$1" /dev/zero | tr '\0' ' ' >"$folder/body"; }

rows='{"changes": {"end_user": [{"id": "r0", "name": "Row 0"}, {"id": "r1", "name": "Row 1"}, {"id": "r2", "name": "Row 2"}]}}'
pull='{"cursor": null, "entityTypes": ["end_user"]}'
small "{\"firstName\": \"Asha\", \"lastName\": \"Rao\", \"email\": \"$email\", \"password\": \"password123\"}"
step register /api/customers/register ""
step login /api/customers/login ""
token=$(grep -o '"token":"[^"]*"' "$folder/answer" | cut -d'"' -f4)
small "$rows" && step push $sync/push "$token"
small "$pull" && step pull $sync/pull "$token"
spaces $((5 << 20)) && step unauthorized $sync/push none
spaces $((20 << 20)) && step too_large $sync/push "$token"
small "$rows" && step unsupported $sync/push "$token" text/plain
small "$pull" && step again $sync/pull "$token"
