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
		response, err := client.send(ctx, "/v1/batch", "application/x-ndjson", source.open)
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
	replaced chan struct{}
	lock     sync.Mutex
	sent     [][]byte
	first    int
	accepted atomic.Bool
}

// open returns the body of a new attempt, and ends the body of the attempt before, which may still be read.
func (source *lines) open() io.Reader {
	if source.replaced != nil {
		close(source.replaced)
	}
	source.replaced = make(chan struct{})
	return &upload{lines: source, replaced: source.replaced}
}

// line returns the line at a place; an attempt that is replaced gets none.
func (source *lines) line(place int, replaced <-chan struct{}) ([]byte, error) {
	source.lock.Lock()
	defer source.lock.Unlock()
	select {
	case <-replaced:
		return nil, io.ErrClosedPipe
	default:
	}
	if place == source.first+len(source.sent) {
		select {
		case item, more := <-source.items:
			if !more {
				return nil, io.EOF
			}
			text, err := json.Marshal(exact{item, "base64"})
			if err != nil {
				return nil, err
			}
			source.sent = append(source.sent, append(text, '\n'))
		case <-replaced:
			return nil, io.ErrClosedPipe
		case <-source.done:
			return nil, context.Canceled
		}
	}
	line := source.sent[place-source.first]
	if source.accepted.Load() {
		source.sent = source.sent[place+1-source.first:]
		source.first = place + 1
	}
	return line, nil
}

// upload is the body of one attempt.
type upload struct {
	lines    *lines
	replaced <-chan struct{}
	place    int
	rest     []byte
}

func (body *upload) Read(into []byte) (int, error) {
	if len(body.rest) == 0 {
		line, err := body.lines.line(body.place, body.replaced)
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
