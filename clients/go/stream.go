package lossd

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"iter"
	"sync"
	"sync/atomic"
)

// Stream evaluates any number of items, with results in the order of the items, in bounded memory. Another
// goroutine takes the items while results are received; leaving the loop ends the request. A bad item gives a result
// with an Error, and the stream continues. The second value is the error that ended the stream; no result follows it.
func (client *Client) Stream(ctx context.Context, items iter.Seq[Item]) iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		source := &lines{items: taken(ctx, items), done: ctx.Done()}
		open := func() io.Reader { return &upload{lines: source} }
		response, err := client.send(ctx, "/v1/batch", "application/x-ndjson", open)
		if err != nil {
			yield(Result{}, err)
			return
		}
		defer response.Body.Close()
		source.accepted.Store(true)
		answer := json.NewDecoder(bufio.NewReader(response.Body))
		for {
			var result Result
			if err := answer.Decode(&result); err == io.EOF {
				return
			} else if err != nil {
				yield(Result{}, err)
				return
			}
			if !yield(result, nil) {
				return
			}
		}
	}
}

// taken passes items on until the context is done.
func taken(ctx context.Context, items iter.Seq[Item]) <-chan Item {
	passed := make(chan Item)
	go func() {
		defer close(passed)
		for item := range items {
			select {
			case passed <- item:
			case <-ctx.Done():
				return
			}
		}
	}()
	return passed
}

// lines are encoded items. Lines that were sent are kept until the server accepts the stream, for retries.
type lines struct {
	items    <-chan Item
	done     <-chan struct{}
	lock     sync.Mutex
	sent     [][]byte
	accepted atomic.Bool
}

// line returns the line at a position, nothing after the last one.
func (source *lines) line(place int) ([]byte, error) {
	source.lock.Lock()
	defer source.lock.Unlock()
	if place < len(source.sent) {
		return source.sent[place], nil
	}
	select {
	case item, more := <-source.items:
		if !more {
			return nil, io.EOF
		}
		text, err := json.Marshal(exact{item, "base64"})
		if err != nil {
			return nil, err
		}
		text = append(text, '\n')
		if !source.accepted.Load() {
			source.sent = append(source.sent, text)
		}
		return text, nil
	case <-source.done:
		return nil, context.Canceled
	}
}

// upload is the body of one attempt.
type upload struct {
	lines *lines
	place int
	rest  []byte
}

func (body *upload) Read(into []byte) (int, error) {
	if len(body.rest) == 0 {
		line, err := body.lines.line(body.place)
		if err != nil {
			return 0, err
		}
		body.rest = line
		body.place++
	}
	count := copy(into, body.rest)
	body.rest = body.rest[count:]
	return count, nil
}
