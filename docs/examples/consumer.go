// A durable consumer in Go: each mail is handled once in effect, whatever is killed, and its attachments are read.
//
//	go mod init crm && go get github.com/nats-io/nats.go
//	go run consumer.go nats://127.0.0.1:4222 crm-go mails
//
// What a mail leads to is a file that is named by the event's ce-id, and appears whole or not at all; only then the
// event is acknowledged. Killed before: the event comes again. Killed after: it comes again, and the file is there.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// nats.prefix of mailbus's settings; streams have it in capitals.
const prefix = "mail"

// What is read of an Email (RFC 8621 section 4); docs/schema/events.json has all of it.
type email struct {
	ID          string `json:"id"`
	Subject     string `json:"subject"`
	Attachments []struct {
		BlobID string `json:"blobId"`
	} `json:"attachments"`
}

type result struct {
	ID          string `json:"id"`
	Subject     string `json:"subject"`
	Attachments int    `json:"attachments"`
	Bytes       int    `json:"bytes"`
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("consumer URL NAME FOLDER")
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, url, name, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	client, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer client.Close()
	stream, err := jetstream.New(client)
	if err != nil {
		return err
	}
	// Durable: the server keeps how far it is.
	consumer, err := stream.Consumer(ctx, strings.ToUpper(prefix)+"_IN", name)
	if err != nil {
		return err
	}
	// This client reads a blob by a consumer that it makes for that, and needs the rights to.
	blobs, err := stream.ObjectStore(ctx, prefix+"-blobs")
	if err != nil {
		return err
	}
	events, err := consumer.Messages(jetstream.PullMaxMessages(20))
	if err != nil {
		return err
	}
	defer events.Stop()
	for {
		event, err := events.Next()
		if err != nil {
			return err
		}
		if err := take(ctx, event, blobs, folder); err != nil {
			return err // not acknowledged: it comes again
		}
	}
}

func take(ctx context.Context, event jetstream.Msg, blobs jetstream.ObjectStore, folder string) error {
	id := event.Headers().Get("ce-id")
	file := filepath.Join(folder, id+".json")
	// Other types of events may come one day: what is not known is acknowledged.
	if event.Headers().Get("ce-type") == "mailbus.received" {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			if err := handle(ctx, event.Data(), blobs, file); err != nil {
				return err
			}
		}
	}
	return event.DoubleAck(ctx)
}

// What your service does with a mail. Done twice it must be as if done once: here the name of the file sees to that.
func handle(ctx context.Context, data []byte, blobs jetstream.ObjectStore, file string) error {
	var mail email
	if err := json.Unmarshal(data, &mail); err != nil {
		return err
	}
	found := result{ID: mail.ID, Subject: mail.Subject, Attachments: len(mail.Attachments)}
	for _, part := range mail.Attachments {
		content, err := blobs.GetBytes(ctx, part.BlobID)
		if err != nil {
			return err
		}
		found.Bytes += len(content)
	}
	text, err := json.Marshal(found)
	if err != nil {
		return err
	}
	return write(file, text)
}

// The file appears whole or not at all.
func write(file string, text []byte) error {
	draft, err := os.CreateTemp(filepath.Dir(file), "draft-*")
	if err != nil {
		return err
	}
	if _, err := draft.Write(text); err != nil {
		return err
	}
	if err := draft.Sync(); err != nil {
		return err
	}
	if err := draft.Close(); err != nil {
		return err
	}
	return os.Rename(draft.Name(), file)
}
