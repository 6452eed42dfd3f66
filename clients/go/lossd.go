// Package lossd is a client of lossd: loss values and exact gradients over HTTP.
package lossd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client calls one server. Only Base is required. Several goroutines may use a Client at once.
type Client struct {
	// Base is the server's address, such as http://127.0.0.1:8000.
	Base string
	// Key is sent as X-API-Key.
	Key string
	// Timeout is for a call including all retries; 0 means a minute. Streams have only the deadline of their context.
	Timeout time.Duration
	// Retries is the number of retries after a 429 or 503; 0 means 4, and negative numbers none.
	Retries int
	// HTTP is used instead of http.DefaultClient.
	HTTP *http.Client
}

// Request describes what to evaluate. Its tensors are of type Tensor, or numbers or nested slices of numbers, which are
// read in the dtype that the loss takes.
type Request struct {
	Inputs map[string]any `json:"inputs,omitempty"`
	Params map[string]any `json:"params,omitempty"`
	// Reduction is mean (the default), sum or none.
	Reduction    string `json:"reduction,omitempty"`
	SampleWeight any    `json:"sample_weight,omitempty"`
	// Gradients is true (the default) for every prediction, false, or a []string of inputs.
	Gradients  any `json:"gradients,omitempty"`
	GradOutput any `json:"grad_output,omitempty"`
	// DType is float32 (the default), float64, float16 or bfloat16.
	DType string `json:"dtype,omitempty"`
	// DivideBy takes the place of the divisor of a mean, so that the shards of a batch add up to its mean; 0 is unset.
	DivideBy float64 `json:"divide_by,omitempty"`
}

// Item is one request of a batch or a stream. Its ID, a string or a number, is returned with the result.
type Item struct {
	ID   any    `json:"id,omitempty"`
	Loss string `json:"loss"`
	Request
}

// exact requests bit-exact results.
type exact struct {
	Item
	Encoding string `json:"encoding"`
}

// Evaluation is the result of evaluating a loss.
type Evaluation struct {
	Loss string `json:"loss"`
	// Value has shape [] for mean and sum, where NaN stands for any non-finite value.
	Value     Tensor            `json:"value"`
	Gradients map[string]Tensor `json:"gradients"`
	// Aux has diagnostics of the loss, such as iou for a box loss.
	Aux map[string]Tensor `json:"aux"`
	// Divisor is what a mean divides by unless DivideBy is set; nil under none, or if it is not finite.
	Divisor   *float64       `json:"divisor"`
	Reduction string         `json:"reduction"`
	DType     string         `json:"dtype"`
	Device    string         `json:"device"`
	NonFinite map[string]int `json:"nonfinite"`
}

// Result is the result of one item: its evaluation, or its problem in Error.
type Result struct {
	ID any
	// Line is the number of a line in a stream, from 1, if the server gives it.
	Line  int
	Error *Problem
	Evaluation
}

// Batch is the answer to a batch, with results in the order of the items.
type Batch struct {
	Results   []Result           `json:"results"`
	Succeeded int                `json:"succeeded"`
	Failed    int                `json:"failed"`
	Summary   map[string]Summary `json:"summary"`
}

// Summary is the mean of one loss over a batch.
type Summary struct {
	Count int      `json:"count"`
	Mean  *float64 `json:"mean"`
}

// Evaluate evaluates one loss. The error is a *Problem if the server refuses.
func (client *Client) Evaluate(ctx context.Context, loss string, request Request) (*Evaluation, error) {
	body := struct {
		Request
		Encoding string `json:"encoding"`
	}{request, "base64"}
	found := &Evaluation{}
	return found, client.Call(ctx, "/v1/losses/"+url.PathEscape(loss), body, found)
}

// Batch evaluates many items in one request. The defaults apply to items that do not set their own.
func (client *Client) Batch(ctx context.Context, items []Item, defaults Request) (*Batch, error) {
	body := struct {
		Items    []Item `json:"items"`
		Defaults any    `json:"defaults"`
	}{items, struct {
		Request
		Encoding string `json:"encoding"`
	}{defaults, "base64"}}
	found := &Batch{}
	return found, client.Call(ctx, "/v1/batch", body, found)
}

// Call posts a body as JSON to any path, or gets the path if the body is nil, and reads the answer into found.
func (client *Client) Call(ctx context.Context, path string, body any, found any) error {
	timeout := client.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	open := func() io.Reader { return nil }
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		open = func() io.Reader { return bytes.NewReader(text) }
	}
	response, err := client.send(ctx, path, "application/json", open)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(found)
}

// send sends a request, with retries if the server is busy, and returns a successful answer.
func (client *Client) send(
	ctx context.Context, path, mediaType string, open func() io.Reader,
) (*http.Response, error) {
	retries := client.Retries
	if retries == 0 {
		retries = 4
	}
	for attempt := 0; ; attempt++ {
		response, err := client.attempt(ctx, path, mediaType, open())
		if err != nil || response.StatusCode < 300 {
			return response, err
		}
		problem := problemOf(response)
		response.Body.Close()
		wait := problem.wait(attempt)
		due, limited := ctx.Deadline()
		if !problem.Busy() || attempt >= retries || limited && time.Now().Add(wait).After(due) {
			return nil, problem
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (client *Client) attempt(
	ctx context.Context, path, mediaType string, body io.Reader,
) (*http.Response, error) {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(client.Base, "/")+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", mediaType)
	}
	if client.Key != "" {
		request.Header.Set("X-API-Key", client.Key)
	}
	if id, given := ctx.Value(requestID{}).(string); given {
		request.Header.Set("X-Request-ID", id)
	}
	if due, limited := ctx.Deadline(); limited {
		seconds := max(time.Millisecond, time.Until(due)).Seconds()
		request.Header.Set("Request-Timeout", strconv.FormatFloat(seconds, 'f', 3, 64))
	}
	if client.HTTP != nil {
		return client.HTTP.Do(request)
	}
	return http.DefaultClient.Do(request)
}

type requestID struct{}

// WithRequestID returns a context whose calls send an X-Request-ID, which the server logs.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestID{}, id)
}

// UnmarshalJSON reads an evaluation; bare numbers get its dtype.
func (found *Evaluation) UnmarshalJSON(text []byte) error {
	type plain Evaluation
	if err := json.Unmarshal(text, (*plain)(found)); err != nil {
		return err
	}
	found.Value = found.Value.in(found.DType)
	for _, tensors := range []map[string]Tensor{found.Gradients, found.Aux} {
		for name, tensor := range tensors {
			tensors[name] = tensor.in(found.DType)
		}
	}
	return nil
}

// UnmarshalJSON reads a result; its status says whether it is an evaluation or a problem.
func (result *Result) UnmarshalJSON(text []byte) error {
	head := struct {
		ID     any
		Line   int
		Status string
		Error  *Problem
	}{}
	if err := json.Unmarshal(text, &head); err != nil {
		return err
	}
	result.ID, result.Line, result.Error = head.ID, head.Line, head.Error
	if head.Status == "ok" {
		return json.Unmarshal(text, &result.Evaluation)
	}
	if head.Error == nil {
		return errors.New("lossd: expected a result; got " + string(text))
	}
	return nil
}
