// The walk by Go's net/http: `go run walk.go URL EMAIL` (README.md).
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

const sync = "/api/client/sync"
const push = `{"changes": {"end_user": [{"id": "r0", "name": "Row 0"}, {"id": "r1", "name": "Row 1"}, {"id": "r2", "name": "Row 2"}]}}`
const pull = `{"cursor": null, "entityTypes": ["end_user"]}`

func send(path, body, token, kind string) (int, string) {
	request, err := http.NewRequest("POST", os.Args[1]+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Content-Type", kind)
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(text)
}

func step(name, path, body, token string) string {
	kind := "application/json"
	if name == "unsupported" {
		kind = "text/plain"
	}
	status, text := send(path, body, token, kind)
	if name == "pull" || name == "again" {
		fmt.Println(name, status, strings.Count(text, `"name":`))
	} else {
		fmt.Println(name, status)
	}
	return text
}

func main() {
	person := fmt.Sprintf(`{"firstName": "Asha", "lastName": "Rao", "email": %q, "password": "password123"}`, os.Args[2])
	step("register", "/api/customers/register", person, "")
	var login struct{ Data struct{ Token string } }
	if err := json.Unmarshal([]byte(step("login", "/api/customers/login", person, "")), &login); err != nil {
		panic(err)
	}
	token := login.Data.Token
	step("push", sync+"/push", push, token)
	step("pull", sync+"/pull", pull, token)
	step("unauthorized", sync+"/push", strings.Repeat(" ", 5<<20), "none")
	step("too_large", sync+"/push", strings.Repeat(" ", 20<<20), token)
	step("unsupported", sync+"/push", push, token)
	step("again", sync+"/pull", pull, token)
}
