package lossd

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault is one thing in a request that must be changed.
type Fault struct {
	// Pointer is a JSON Pointer into the request, such as /inputs/targets/3.
	Pointer string `json:"pointer"`
	Code    string `json:"code"`
	Detail  string `json:"detail"`
}

// Problem is the problem with a refused request (RFC 9457).
type Problem struct {
	Type     string  `json:"type"`
	Title    string  `json:"title"`
	Status   int     `json:"status"`
	Detail   string  `json:"detail"`
	Instance string  `json:"instance"`
	Errors   []Fault `json:"errors"`
	// RequestID is the X-Request-ID of the answer, by which the request is found in the server's log.
	RequestID string `json:"-"`
	// RetryAfter is the time after which to retry, if the server gives it.
	RetryAfter time.Duration `json:"-"`
}

func (problem *Problem) Error() string {
	lines := []string{fmt.Sprintf("lossd: %d: %s", problem.Status, problem.Detail)}
	for _, fault := range problem.Errors {
		lines = append(lines, fault.Pointer+": "+fault.Detail)
	}
	return strings.Join(lines, "\n")
}

// Busy reports whether the same request may succeed later.
func (problem *Problem) Busy() bool {
	return problem.Status == http.StatusTooManyRequests || problem.Status == http.StatusServiceUnavailable
}

// problemOf reads the problem from an answer, which a proxy may have written.
func problemOf(response *http.Response) *Problem {
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	problem := &Problem{}
	if !strings.Contains(response.Header.Get("Content-Type"), "json") || json.Unmarshal(text, problem) != nil {
		*problem = Problem{Type: "about:blank", Title: response.Status, Detail: string(text)}
	}
	problem.Status = response.StatusCode
	problem.RequestID = response.Header.Get("X-Request-ID")
	problem.RetryAfter = retryAfter(response.Header.Get("Retry-After"))
	return problem
}

// retryAfter reads seconds or a date.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.Atoi(strings.TrimSpace(header)); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(header); err == nil {
		return max(0, time.Until(date))
	}
	return 0
}

// wait returns the server's Retry-After and a random delay that grows with each attempt.
func (problem *Problem) wait(attempt int) time.Duration {
	most := min(10*time.Second, 250*time.Millisecond<<min(attempt, 10))
	return problem.RetryAfter + rand.N(most)
}
