package lossd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// go test ./clients/go, with the address of a server in LOSSD_URL, and a key in LOSSD_KEY if it requires one
var (
	address = os.Getenv("LOSSD_URL")
	client  = &Client{Base: address, Key: os.Getenv("LOSSD_KEY")}
	ctx     = context.Background()
)

type testCase struct {
	Name    string
	Loss    string
	Request struct {
		Inputs       map[string]Tensor
		Params       map[string]any
		Reduction    string
		SampleWeight *Tensor `json:"sample_weight"`
		Gradients    any
		GradOutput   *Tensor `json:"grad_output"`
		DType        string
		DivideBy     float64 `json:"divide_by"`
	}
	Answer *struct {
		Value     Tensor
		Gradients map[string]Tensor
		Aux       map[string]Tensor
		Divisor   *float64
	}
	Faults []struct{ Pointer, Code string }
}

func cases(t *testing.T) (all []testCase, items []Item) {
	text, err := os.ReadFile("../cases.json")
	must(t, err)
	must(t, json.Unmarshal(text, &all))
	for _, one := range all {
		sent := one.Request
		request := Request{
			Inputs: map[string]any{}, Params: sent.Params, Reduction: sent.Reduction,
			Gradients: sent.Gradients, DType: sent.DType, DivideBy: sent.DivideBy,
		}
		for name, tensor := range sent.Inputs {
			request.Inputs[name] = again(t, tensor)
		}
		if sent.SampleWeight != nil {
			request.SampleWeight = again(t, *sent.SampleWeight)
		}
		if sent.GradOutput != nil {
			request.GradOutput = again(t, *sent.GradOutput)
		}
		items = append(items, Item{ID: one.Name, Loss: one.Loss, Request: request})
	}
	return all, items
}

// again creates a tensor from the numbers of another.
func again(t *testing.T, tensor Tensor) Tensor {
	switch tensor.DType {
	case "bool":
		return remade[bool](t, tensor)
	case "int64":
		return remade[int64](t, tensor)
	case "float32":
		return remade[float32](t, tensor)
	case "float64":
		return remade[float64](t, tensor)
	}
	return tensor
}

func remade[T Element](t *testing.T, tensor Tensor) Tensor {
	numbers, err := Values[T](tensor)
	must(t, err)
	if len(tensor.Shape) == 0 {
		return Scalar(numbers[0])
	}
	return Of(numbers, tensor.Shape...)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, found, expected any) {
	t.Helper()
	if !reflect.DeepEqual(found, expected) {
		t.Fatalf("expected %v; got %v", expected, found)
	}
}

func same(t *testing.T, found, expected map[string]Tensor) {
	t.Helper()
	equal(t, len(found), len(expected))
	for name := range expected {
		sameBits(t, found[name], expected[name])
	}
}

func sameBits(t *testing.T, found, expected Tensor) {
	t.Helper()
	if found.DType != expected.DType || len(found.Shape) != len(expected.Shape) || !bytes.Equal(found.Data, expected.Data) {
		t.Fatalf("expected %v; got %v", expected, found)
	}
	for i := range found.Shape {
		equal(t, found.Shape[i], expected.Shape[i])
	}
}

func check(t *testing.T, one testCase, found Evaluation) {
	t.Helper()
	equal(t, found.Loss, one.Loss)
	sameBits(t, found.Value, one.Answer.Value)
	same(t, found.Gradients, one.Answer.Gradients)
	same(t, found.Aux, one.Answer.Aux)
	equal(t, found.Divisor, one.Answer.Divisor)
}

func checkFaults(t *testing.T, one testCase, problem *Problem) {
	t.Helper()
	equal(t, problem.Status, 422)
	equal(t, len(problem.Errors), len(one.Faults))
	for i, fault := range problem.Errors {
		equal(t, [2]string{fault.Pointer, fault.Code}, [2]string{one.Faults[i].Pointer, one.Faults[i].Code})
	}
}

func checkAll(t *testing.T, all []testCase, results []Result) {
	t.Helper()
	equal(t, len(results), len(all))
	for i, result := range results {
		equal(t, result.ID, all[i].Name)
		if all[i].Answer == nil {
			checkFaults(t, all[i], result.Error)
		} else {
			check(t, all[i], result.Evaluation)
		}
	}
}

func TestEvaluate(t *testing.T) {
	all, items := cases(t)
	for i, one := range all {
		t.Run(one.Name, func(t *testing.T) {
			found, err := client.Evaluate(ctx, one.Loss, items[i].Request)
			var problem *Problem
			if errors.As(err, &problem) && one.Answer == nil {
				checkFaults(t, one, problem)
				return
			}
			must(t, err)
			check(t, one, *found)
		})
	}
}

func TestABatchGivesWhatItsItemsGiveAlone(t *testing.T) {
	all, items := cases(t)
	found, err := client.Batch(ctx, items, Request{})
	must(t, err)
	checkAll(t, all, found.Results)
	equal(t, []int{found.Succeeded, found.Failed}, []int{len(all) - 1, 1})
	equal(t, found.Summary["huber"].Count, 1)
}

func huber(params map[string]any) Item {
	inputs := map[string]any{"predictions": []float64{5}, "targets": []float64{0}}
	return Item{Loss: "huber", Request: Request{Inputs: inputs, Params: params}}
}

func TestTheDefaultsOfABatchHold(t *testing.T) {
	defaults := Request{Params: map[string]any{"delta": 3}, Gradients: false}
	found, err := client.Batch(ctx, []Item{huber(nil), huber(map[string]any{})}, defaults)
	must(t, err)
	for _, result := range found.Results {
		equal(t, result.Value.Item(), 10.5)
		equal(t, len(result.Gradients), 0)
	}
}

func streamed(t *testing.T, client *Client, items []Item) (results []Result) {
	t.Helper()
	for result, err := range client.Stream(ctx, func(yield func(Item) bool) {
		for _, item := range items {
			if !yield(item) {
				return
			}
		}
	}) {
		must(t, err)
		results = append(results, result)
	}
	return results
}

func TestAStreamGivesWhatItsItemsGiveAlone(t *testing.T) {
	all, items := cases(t)
	checkAll(t, all, streamed(t, client, items))
}

func mse(prediction any) Item {
	inputs := map[string]any{"predictions": []any{prediction}, "targets": []any{0}}
	return Item{ID: prediction, Loss: "mse", Request: Request{Inputs: inputs}}
}

func TestALongStreamComesBackInOrder(t *testing.T) {
	next := 0
	for result, err := range client.Stream(ctx, func(yield func(Item) bool) {
		for number := 0; number < 2000 && yield(mse(number)); number++ {
		}
	}) {
		must(t, err)
		equal(t, result.ID, float64(next))
		equal(t, result.Value.Item(), float64(float32(next*next)))
		next++
	}
	equal(t, next, 2000)
}

func TestAStreamHasResultsWhileItsItemsAreStillMade(t *testing.T) {
	answered := make(chan bool)
	count := 0
	for result, err := range client.Stream(ctx, func(yield func(Item) bool) {
		yield(mse(1))
		<-answered
		yield(mse(2))
	}) {
		must(t, err)
		if count++; count == 1 {
			close(answered)
		}
		equal(t, result.ID, float64(count))
	}
	equal(t, count, 2)
}

func TestLeavingAStreamEndsItsSource(t *testing.T) {
	ended := make(chan bool)
	for _, err := range client.Stream(ctx, func(yield func(Item) bool) {
		defer close(ended)
		for yield(mse(1)) {
		}
	}) {
		must(t, err)
		break
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the source goes on")
	}
}

func TestAnItemThatIsNoJSONEndsItsStream(t *testing.T) {
	for _, err := range client.Stream(ctx, func(yield func(Item) bool) { yield(mse(math.NaN())) }) {
		var unsupported *json.UnsupportedValueError
		if !errors.As(err, &unsupported) {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("no error")
}

func TestAValueBeyondItsDtypeIsNaNAndCounted(t *testing.T) {
	found, err := client.Evaluate(ctx, "mse", mse(1e39).Request)
	must(t, err)
	equal(t, math.IsNaN(found.Value.Item()), true)
	equal(t, found.NonFinite["value"], 1)
}

func problemFrom(t *testing.T, err error) *Problem {
	t.Helper()
	var problem *Problem
	if !errors.As(err, &problem) {
		t.Fatalf("expected a problem; got %v", err)
	}
	return problem
}

func TestAnUnknownLossIsAProblem(t *testing.T) {
	_, err := client.Evaluate(WithRequestID(ctx, "from-go"), "msee", Request{})
	problem := problemFrom(t, err)
	equal(t, problem.Status, 404)
	equal(t, problem.RequestID, "from-go")
}

func TestAWrongKeyIsAProblem(t *testing.T) {
	if client.Key == "" {
		t.Skip("the server wants no key")
	}
	_, err := (&Client{Base: address, Key: "wrong"}).Evaluate(ctx, "mse", mse(1).Request)
	equal(t, problemFrom(t, err).Status, 401)
}

func TestCallReachesEverythingElse(t *testing.T) {
	var found struct{ Name string }
	must(t, client.Call(ctx, "/v1/losses/huber", nil, &found))
	equal(t, found.Name, "huber")
}

// refusing refuses some requests, then passes the others on to the real server.
func refusing(t *testing.T, refusals int, status int, retryAfter string) (*Client, *atomic.Int64) {
	target, err := url.Parse(address)
	must(t, err)
	real, calls := httputil.NewSingleHostReverseProxy(target), &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		// else the server reads the whole request before it answers, or stops reading once it answers
		if err := http.NewResponseController(writer).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		if calls.Add(1) > int64(refusals) {
			real.ServeHTTP(writer, request)
			return
		}
		writer.Header().Set("Content-Type", "application/problem+json")
		writer.Header().Set("Retry-After", retryAfter)
		writer.WriteHeader(status)
		_, _ = io.WriteString(writer, `{"title": "Busy", "detail": "Come back."}`)
	}))
	t.Cleanup(server.Close)
	return &Client{Base: server.URL, Key: client.Key}, calls
}

func TestABusyServerIsTriedAgainAfterRetryAfter(t *testing.T) {
	for _, status := range []int{429, 503} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			busy, calls := refusing(t, 1, status, "1")
			start := time.Now()
			found, err := busy.Evaluate(ctx, "mse", mse(3).Request)
			must(t, err)
			equal(t, found.Value.Item(), 9.0)
			equal(t, calls.Load(), int64(2))
			if time.Since(start) < time.Second {
				t.Fatal(time.Since(start))
			}
		})
	}
}

func TestAStreamThatIsRefusedStartsAgainWithItsFirstItem(t *testing.T) {
	all, items := cases(t)
	busy, calls := refusing(t, 2, 429, "0")
	checkAll(t, all, streamed(t, busy, items))
	equal(t, calls.Load(), int64(3))
}

func TestAStreamThatIsRefusedLosesNoItemThatIsMadeLater(t *testing.T) {
	busy, calls := refusing(t, 2, 503, "0")
	received := make(chan struct{})
	items := func(yield func(Item) bool) {
		for index := range 3 {
			if !yield(mse(float64(index))) {
				return
			}
			select {
			case <-received:
			case <-time.After(time.Minute):
				t.Error("expected a result while the next item is made")
				return
			}
		}
	}
	var values []any
	for result, err := range busy.Stream(ctx, items) {
		must(t, err)
		values = append(values, result.Value.Item())
		received <- struct{}{}
	}
	equal(t, fmt.Sprint(values), "[0 1 4]")
	equal(t, calls.Load(), int64(3))
}

func TestAServerThatStaysBusyIsAProblemInTheEnd(t *testing.T) {
	busy, calls := refusing(t, 99, 429, "0")
	_, err := busy.Evaluate(ctx, "mse", mse(1).Request)
	equal(t, problemFrom(t, err).Status, 429)
	equal(t, calls.Load(), int64(5))
}

func TestNoTryIsMadeThatWouldComeTooLate(t *testing.T) {
	busy, calls := refusing(t, 99, 503, time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
	_, err := busy.Evaluate(ctx, "mse", mse(1).Request)
	if problem := problemFrom(t, err); problem.RetryAfter < 59*time.Minute {
		t.Fatal(problem.RetryAfter)
	}
	equal(t, calls.Load(), int64(1))
}

func TestACallThatTakesTooLongIsGivenUp(t *testing.T) {
	header := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		header <- request.Header.Get("Request-Timeout")
		_, _ = io.ReadAll(request.Body)
		<-request.Context().Done()
	}))
	defer server.Close()
	_, err := (&Client{Base: server.URL, Timeout: 200 * time.Millisecond}).Evaluate(ctx, "mse", mse(1).Request)
	equal(t, errors.Is(err, context.DeadlineExceeded), true)
	if seconds, err := strconv.ParseFloat(<-header, 64); err != nil || seconds <= 0 || seconds > 0.2 {
		t.Fatal(seconds, err)
	}
}

func TestAWaitCanBeCancelled(t *testing.T) {
	busy, _ := refusing(t, 99, 503, "30")
	ctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(200*time.Millisecond, cancel)
	_, err := busy.Evaluate(ctx, "mse", mse(1).Request)
	equal(t, errors.Is(err, context.Canceled), true)
}

func TestWhatAProxySaysIsAProblemToo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
		writer.WriteHeader(502)
		_, _ = io.WriteString(writer, "<h1>Bad gateway</h1>")
	}))
	defer server.Close()
	_, err := (&Client{Base: server.URL}).Evaluate(ctx, "mse", mse(1).Request)
	problem := problemFrom(t, err)
	equal(t, problem.Status, 502)
	equal(t, problem.Detail, "<h1>Bad gateway</h1>")
}

func TestHalfTypesAreReadAsTheNumbersThatTheyAre(t *testing.T) {
	half := Tensor{DType: "float16", Shape: []int{5}, Data: []byte{0, 0x3c, 0, 0xc0, 1, 0, 0, 0x7c, 0x55, 0x35}}
	equal(t, half.Float64s(), []float64{1, -2, math.Ldexp(1, -24), math.Inf(1), 0.333251953125})
	brain := Tensor{DType: "bfloat16", Shape: []int{2}, Data: []byte{0x80, 0x3f, 0x40, 0xc0}}
	equal(t, brain.Float64s(), []float64{1, -3})
}

func TestNumbersMustFitTheirShape(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("no panic")
		}
	}()
	Of([]float32{1, 2, 3}, 2, 2)
}
